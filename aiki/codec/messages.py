"""Messages: engine values as the bodies that the broker carries.

Each kind has its envelope, each envelope its two functions. A value that was
encoded decodes to an equal value; bytes that anybody sent decode to a value or
raise ``UndecodableError``, and nothing else. Payloads are carried as the text
that they are, never parsed here.

The samples in ``tests/codec/samples`` are the format: they decode for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Annotated

from pydantic import FailFast, Field
from pydantic_core import from_json, to_json

from aiki.codec.envelope import WRONG_CONTENT, Envelope, EnvelopeCodec
from aiki.codec.schema import EVENT_LIMITS, LETTER_LIMITS
from aiki.engine.commands import DeadLetter, Notice, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query
from aiki.errors import UndecodableError

__all__ = [
    "DEAD_LETTER_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "build_schemas",
    "dead_letter_of",
    "decode_answer",
    "decode_command",
    "decode_control",
    "decode_dead_letter",
    "decode_events",
    "decode_notice",
    "decode_query",
    "encode_answer",
    "encode_command",
    "encode_control",
    "encode_dead_letter",
    "encode_events",
    "encode_notice",
    "encode_query",
    "take_events_apart",
]

# Half of what a document may take and half of what RabbitMQ 4 accepts by default: room for several payloads.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024

# A dead letter quotes a whole message, and quoting escapes; RabbitMQ 4 refuses more than 16 MiB.
DEAD_LETTER_BYTES_MAX = 15 * 1024 * 1024

# Twice what a publisher of ours puts into one message.
_EVENTS_TAKEN_APART_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Events(Envelope):
    # A body of nothing but wrong events would cost an error report for each: the first is enough.
    events: Annotated[tuple[Annotated[Event, Field(discriminator="type")], ...], FailFast()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command(Envelope):
    command: Annotated[WorkerCommand, Field(discriminator="type")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notice(Envelope):
    notice: Annotated[Notice, Field(discriminator="type")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Control(Envelope):
    control: NotifyWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeadLetter(Envelope):
    dead_letter: DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query(Envelope):
    query: Annotated[Query, Field(discriminator="type")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer(Envelope):
    answer: Annotated[Answer, Field(discriminator="type")]


_EVENTS: EnvelopeCodec[tuple[Event, ...]] = EnvelopeCodec(_Events, "events", EVENT_LIMITS)
# Whoever executes an order answers with what it names: what is no event's cannot be an order's.
_COMMAND: EnvelopeCodec[WorkerCommand] = EnvelopeCodec(_Command, "command", EVENT_LIMITS)
_NOTICE: EnvelopeCodec[Notice] = EnvelopeCodec(_Notice, "notice")
_CONTROL: EnvelopeCodec[NotifyWorker] = EnvelopeCodec(_Control, "control")
_DEAD_LETTER: EnvelopeCodec[DeadLetter] = EnvelopeCodec(_DeadLetter, "dead_letter", LETTER_LIMITS)
_QUERY: EnvelopeCodec[Query] = EnvelopeCodec(_Query, "query")
_ANSWER: EnvelopeCodec[Answer] = EnvelopeCodec(_Answer, "answer")


def build_schemas() -> None:
    """Build what the first message of each kind would wait for: for processes that start before they serve."""
    for codec in (_EVENTS, _COMMAND, _NOTICE, _CONTROL, _DEAD_LETTER, _QUERY, _ANSWER):
        codec.build()


def encode_events(events: Sequence[Event], *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write *events*, at least one, as one message. Raises as ``EnvelopeCodec.encode``, like all of these."""
    if not events:
        raise ValueError("a message of events carries at least one")
    return _EVENTS.encode(tuple(events), bytes_max=bytes_max)


def decode_events(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> tuple[Event, ...]:
    """Read the events of a message. Raises as ``EnvelopeCodec.decode``, like all of these."""
    events = _EVENTS.decode(body, bytes_max=bytes_max)
    if not events:
        raise UndecodableError(WRONG_CONTENT, "it carries no event")
    return events


def take_events_apart(body: bytes) -> tuple[bytes, ...]:
    """Make messages of one event each out of one that could not be decoded, so that a bad event costs only itself.

    Empty if there is nothing to gain: it is no message of events, carries a single one, or more than anybody of us
    sends together.
    """
    try:
        message = from_json(body)
    except ValueError:
        return ()
    events = message.get("events") if isinstance(message, dict) else None
    if not isinstance(events, list) or not 1 < len(events) <= _EVENTS_TAKEN_APART_MAX:
        return ()
    return tuple(to_json({**message, "events": [event]}) for event in events)


def encode_command(command: WorkerCommand, *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write an order to a worker."""
    return _COMMAND.encode(command, bytes_max=bytes_max)


def decode_command(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> WorkerCommand:
    """Read an order to a worker."""
    return _COMMAND.decode(body, bytes_max=bytes_max)


def encode_notice(notice: Notice, *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write a notice."""
    return _NOTICE.encode(notice, bytes_max=bytes_max)


def decode_notice(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> Notice:
    """Read a notice."""
    return _NOTICE.decode(body, bytes_max=bytes_max)


def encode_control(control: NotifyWorker, *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write what one worker is told."""
    return _CONTROL.encode(control, bytes_max=bytes_max)


def decode_control(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> NotifyWorker:
    """Read what one worker is told."""
    return _CONTROL.decode(body, bytes_max=bytes_max)


def encode_dead_letter(letter: DeadLetter, *, bytes_max: int = DEAD_LETTER_BYTES_MAX) -> bytes:
    """Write a dead letter."""
    return _DEAD_LETTER.encode(letter, bytes_max=bytes_max)


def decode_dead_letter(body: bytes, *, bytes_max: int = DEAD_LETTER_BYTES_MAX) -> DeadLetter:
    """Read a dead letter."""
    return _DEAD_LETTER.decode(body, bytes_max=bytes_max)


def encode_query(query: Query, *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write a query."""
    return _QUERY.encode(query, bytes_max=bytes_max)


def decode_query(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> Query:
    """Read a query."""
    return _QUERY.decode(body, bytes_max=bytes_max)


def encode_answer(answer: Answer, *, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes:
    """Write an answer."""
    return _ANSWER.encode(answer, bytes_max=bytes_max)


def decode_answer(body: bytes, *, bytes_max: int = MESSAGE_BYTES_MAX) -> Answer:
    """Read an answer."""
    return _ANSWER.decode(body, bytes_max=bytes_max)


def dead_letter_of(error: UndecodableError, *, origin: str, body: bytes, at: datetime) -> DeadLetter:
    """Make a dead letter of a message that could not be decoded, found in the queue *origin*.

    Its id is a digest of origin and body: parked twice, it counts as the same. It always fits into
    a message itself; a body that is too large for that is cut, and the detail says so.
    """
    # A broker may carry a hundred times what a message of ours may have: what is cut anyway is never decoded.
    is_huge = len(body) > _QUOTED_BYTES_MAX
    text = (body[:_CHARACTERS_SURELY_FIT] if is_huge else body).decode("utf-8", "backslashreplace")
    detail = error.detail
    if is_huge or len(to_json(text)) > _QUOTED_BYTES_MAX:
        text = text[:_CHARACTERS_SURELY_FIT]
        detail = f"{detail}; of its {len(body):,} bytes only the first {len(text):,} characters are kept"
    key = blake2b(origin.encode() + b"\0" + body, digest_size=16).hexdigest()
    return DeadLetter(id=key, reason=error.reason, at=at, origin=origin, body=text, detail=detail)


# JSON may need six bytes for one character (``\u0000``). The other mebibyte is for the rest of the letter.
_QUOTED_BYTES_MAX = DEAD_LETTER_BYTES_MAX - 1024 * 1024
_CHARACTERS_SURELY_FIT = _QUOTED_BYTES_MAX // 6
