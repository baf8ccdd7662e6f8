"""The envelope: what every message is written in, and the rule for reading what others wrote.

A message is a JSON object that a person can read: ``v``, the version of the
format, and one field that holds the content. Fields at their default are left
out. An optional ``minor`` counts the additions that a reader may ignore:

* a ``v`` other than ours is refused;
* with a ``minor`` newer than ours, fields that we do not know are ignored;
* otherwise they are refused: nobody meant to send them.

What is refused leaves as one kind of error, with a reason that fits a table and
a detail that never repeats the content.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator, ValidationError, from_json

from aiki.codec.schema import Limits, compile_schema
from aiki.errors import PayloadError, PayloadTooLargeError, UndecodableError

__all__ = ["BROKEN_JSON", "FORMAT", "MINOR", "TOO_LARGE", "UNKNOWN_TYPE", "UNKNOWN_VERSION", "WRONG_CONTENT"]
__all__ += ["Envelope", "EnvelopeCodec"]

T = TypeVar("T")

FORMAT = 1
MINOR = 0

TOO_LARGE = "too_large"
BROKEN_JSON = "broken_json"
UNKNOWN_VERSION = "unknown_version"
UNKNOWN_TYPE = "unknown_type"
WRONG_CONTENT = "wrong_content"


# Readers give up at 200 nested levels, and only causes of failures nest without bound. (In a string the quotes would
# be escaped.) A message with fewer of them is readable for sure, one with more is read to see.
_CAUSE = b'"cause":{'
_CAUSES_READABLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The fields that every message has; each kind of message adds the one with its content."""

    v: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    minor: Annotated[int, Field(ge=0)] = 0


class EnvelopeCodec(Generic[T]):
    """Writes and reads one kind of message: *content* is the field of *envelope* that holds the value.

    What is longer than *limits* say is written, for it was read by these limits, and not read.

    Its schema is built when it is first needed: that takes milliseconds, and few processes need every kind.
    """

    def __init__(self, envelope: Callable[..., Envelope], content: str, limits: Limits | None = None) -> None:
        self._envelope = envelope
        self._content = content
        self._content_of = attrgetter(content)
        self._limits = limits

    def build(self) -> None:
        """Build the schema now, so that no message waits for it."""
        _ = self._validator, self._serializer

    @cached_property
    def _schema(self) -> tuple[SchemaValidator, SchemaSerializer]:
        return compile_schema(self._envelope, self._limits)

    # Each by itself: every message looks one of them up.
    @cached_property
    def _validator(self) -> SchemaValidator:
        return self._schema[0]

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return self._schema[1]

    def encode(self, value: T, *, bytes_max: int) -> bytes:
        """Write *value*.

        Raises:
            PayloadError: something in it cannot be written, such as half a surrogate pair.
            PayloadTooLargeError: the message would be longer than *bytes_max*.
        """
        try:
            envelope = self._envelope(v=FORMAT, **{self._content: value})
            body = self._serializer.to_json(envelope, exclude_defaults=True, warnings="error")
        except PydanticSerializationError as error:
            raise PayloadError("message", str(error)) from error

        if len(body) > bytes_max:
            raise PayloadTooLargeError("message", size=len(body), bytes_max=bytes_max)
        if body.count(_CAUSE) > _CAUSES_READABLE:
            self._check_depth(body)
        return body

    def _check_depth(self, body: bytes) -> None:
        try:
            self._validate(body, extra="forbid")
        except ValidationError as error:
            raise PayloadError("message", "a failure in it has too many nested causes") from error

    def decode(self, body: bytes, *, bytes_max: int) -> T:
        """Read a value.

        Raises:
            UndecodableError: the message is too large, broken, of an unknown version or type, or wrong inside.
        """
        if len(body) > bytes_max:
            raise UndecodableError(TOO_LARGE, f"it takes {len(body):,} bytes, {bytes_max:,} are allowed")
        try:
            return self._validate(body, extra="forbid")
        except ValidationError as error:
            return self._decode_newer(body, error)

    def _decode_newer(self, body: bytes, error: ValidationError) -> T:
        """Try again what may come from a newer sender, or say what is wrong. Off the hot path."""
        if not _is_newer_minor(_head(body)):
            raise _undecodable(error) from error
        try:
            return self._validate(body, extra="ignore")
        except ValidationError as still:
            raise _undecodable(still) from still

    def _validate(self, body: bytes, *, extra: Any) -> T:
        envelope = self._validator.validate_json(body, strict=True, extra=extra)
        value: T = self._content_of(envelope)
        return value


def _head(body: bytes) -> dict[str, Any]:
    """Read a message without its schema, and check that its format is ours."""
    try:
        head = from_json(body)
    except ValueError as error:
        raise UndecodableError(BROKEN_JSON, str(error)) from error
    if not isinstance(head, dict):
        raise UndecodableError(WRONG_CONTENT, f"a message is a JSON object, not a {type(head).__name__}")

    version = head.get("v")
    if type(version) is not int or version != FORMAT:
        written = repr(version)
        raise UndecodableError(UNKNOWN_VERSION, f"its format is {written[:40]}, ours is {FORMAT}")
    return head


def _is_newer_minor(head: dict[str, Any]) -> bool:
    minor = head.get("minor", 0)
    return type(minor) is int and minor > MINOR


# Three show the pattern of what is wrong; hundreds would bury it. A message can hold half a million mistakes,
# and only to list them would take longer than to read it.
_ERRORS_SHOWN = 3
_ERRORS_LISTED_MAX = 1_000


def _undecodable(error: ValidationError) -> UndecodableError:
    if error.error_count() > _ERRORS_LISTED_MAX:
        return UndecodableError(WRONG_CONTENT, f"{error.error_count():,} fields are wrong, or unknown")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    reason = UNKNOWN_TYPE if any(one["type"] == "union_tag_invalid" for one in found) else WRONG_CONTENT
    shown = [f"{'.'.join(str(step) for step in one['loc'])}: {one['msg']}"[:300] for one in found[:_ERRORS_SHOWN]]
    more = [f"and {len(found) - _ERRORS_SHOWN} more"] if len(found) > _ERRORS_SHOWN else []
    return UndecodableError(reason, "; ".join(shown + more))
