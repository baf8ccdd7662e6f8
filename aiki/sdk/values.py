"""Values without a declared type, as payloads."""

from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from aiki.engine.payload import Payload, dump_payload
from aiki.errors import PayloadError

__all__ = ["dump_anything"]


def dump_anything(value: Any, *, what: str) -> Payload:
    """Write *value*, of any type that pydantic knows how to write.

    Raises:
        PayloadError: it does not, or JSON cannot say it.
        PayloadTooLargeError: the text is too long.
    """
    try:
        plain = to_jsonable_python(value, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise PayloadError(what, str(error)) from error
    return dump_payload(plain, what=what)
