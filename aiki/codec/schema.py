"""What pydantic derives from the engine's dataclasses, tightened for what is sent and kept.

The engine's values are plain frozen dataclasses that know nothing of formats.
Two rules hold wherever they are written, and are laid over the derived schema here:

* a moment is UTC, to the millisecond, and comes back with ``datetime.UTC`` itself
  (equal time zones compare without asking either of them);
* ``type`` is always written, though it has a default: it tells one value from another.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import CoreSchema, PydanticCustomError, SchemaSerializer, SchemaValidator, core_schema

__all__ = ["compile_schema"]


def compile_schema(form: Any) -> tuple[SchemaValidator, SchemaSerializer]:
    """Make the validator and the serializer of *form*, anything that pydantic understands."""
    schema = TypeAdapter(form).core_schema
    return SchemaValidator(_tighten(schema, stamp=_STAMP)), SchemaSerializer(_tighten(schema, stamp=None))


def _tighten(node: Any, *, stamp: CoreSchema | None) -> Any:
    """Rebuild a core schema with the rules of this module in it, and with *stamp*, if there is one, for moments."""
    if isinstance(node, list | tuple):
        return type(node)(_tighten(item, stamp=stamp) for item in node)
    if not isinstance(node, dict):
        return node
    if node.get("type") == "datetime" and stamp is not None:
        return stamp

    rebuilt = {key: _tighten(value, stamp=stamp) for key, value in node.items()}
    if (
        rebuilt.get("type") == "dataclass-field"
        and rebuilt["name"] == "type"
        and rebuilt["schema"]["type"] == "default"
    ):
        rebuilt["schema"] = rebuilt["schema"]["schema"]
    return rebuilt


# Written in C and with UTC itself as the zone: a sixth of what it takes to mend what pydantic reads.
_read = datetime.fromisoformat


def _moment(text: str) -> datetime:
    try:
        moment = _read(text)
    except ValueError:
        raise _no_moment() from None  # What it says quotes the text.
    if moment.tzinfo is not UTC:
        raise _no_moment()
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if moment.microsecond % 1000 else moment


def _no_moment() -> PydanticCustomError:
    return PydanticCustomError("moment", "a moment is a date and a time of day in UTC")


_STAMP = core_schema.no_info_after_validator_function(_moment, core_schema.str_schema(strict=True))
