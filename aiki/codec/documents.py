"""Documents: engine values as what the stores keep.

A document is built of strings, numbers, booleans, lists, dicts and aware
datetimes. BSON takes it as it is; ``dump_document`` writes the same as JSON text.
Keys are short, since a store keeps them millions of times, and empty fields are
left out. Payloads go in and out as the text that they are.

Nothing that an engine value can hold fails to be stored: text that UTF-8 cannot
carry (lone surrogates) is kept as bytes, whole numbers beyond 64 bits as text,
and a chain of causes as a list, so that its length is no depth.

The samples in ``tests/codec/test_documents.py`` are the format: they are read for ever.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from aiki.codec.upgrades import Upgrades, upgraded
from aiki.engine.commands import DeadLetter
from aiki.engine.journal import EntryKind, Failure, InboxItem, InboxKind, JournalEntry, Wait, WaitKind
from aiki.engine.queries import StoredDeadLetter
from aiki.engine.state import Pair, Parent, RunState
from aiki.engine.status import RunStatus
from aiki.errors import StoreError

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "FORMAT",
    "Document",
    "dump_document",
    "entry_from_document",
    "entry_to_document",
    "letter_from_document",
    "letter_to_document",
    "load_document",
    "milliseconds_of",
    "moment_of",
    "run_from_document",
    "run_to_document",
    "storable_text",
    "text_of",
    "weigh",
]

Document = dict[str, Any]
T = TypeVar("T")

FORMAT = 1
UPGRADES: Upgrades = {}

# MongoDB refuses documents of more than 16 MiB; the names of fields and the like need some of it.
DOCUMENT_BYTES_MAX = 15 * 1024 * 1024
ELEMENT_BYTES = 24

ID_DIGITS = 32

# The message of a letter is what may be huge. Beyond this, its beginning has to be enough: shown to whoever asks it
# is quoted, and a message of nothing but zeros takes six bytes for each.
LETTER_CHARACTERS_MAX = 3 * 1024 * 1024
LETTER_QUOTED_BYTES_MAX = 6 * 1024 * 1024
QUOTED_BYTES_PER_CHARACTER_MAX = 6
DETAIL_CHARACTERS_MAX = 64 * 1024

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
INT64 = range(-(2**63), 2**63)


def milliseconds_of(moment: datetime) -> int:
    """Write *moment* as milliseconds since 1970."""
    return (moment - EPOCH) // MILLISECOND


def moment_of(stored: datetime | int) -> datetime:
    """Read a moment, as BSON has it or as JSON has it."""
    return stored if isinstance(stored, datetime) else EPOCH + stored * MILLISECOND


def storable_text(text: str) -> str | bytes:
    """Write *text*: as it is, or as bytes where it holds a lone surrogate, which UTF-8 cannot carry."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def text_of(stored: str | bytes) -> str:
    """Read what ``storable_text`` wrote."""
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


def _number(value: int) -> int | str:
    return value if value in INT64 else str(value)


def _texts(values: Sequence[str]) -> list[str | bytes]:
    return [storable_text(value) for value in values]


def _texts_of(stored: Sequence[str | bytes]) -> tuple[str, ...]:
    return tuple(text_of(value) for value in stored)


def _ids(values: Sequence[str]) -> bytes | list[str | bytes]:
    """Write ids of which a run may gather thousands: 16 bytes each, if all of them are as our client makes them."""
    digits = "".join(values)
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return _texts(values)
    is_ours = set(map(len, values)) == {ID_DIGITS} and packed.hex() == digits
    return packed if is_ours else _texts(values)


def _ids_of(stored: bytes | Sequence[str | bytes]) -> tuple[str, ...]:
    if not isinstance(stored, bytes):
        return _texts_of(stored)
    digits = stored.hex()
    return tuple(digits[start : start + ID_DIGITS] for start in range(0, len(digits), ID_DIGITS))


class _Field(NamedTuple):
    """One field of a value: its name there, its key in the document, how it is written and read."""

    name: str
    key: str
    write: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None
    empty: object = object()
    """The value that is left out. Never a default that could change, or old documents would change with it."""


class _Shape(Generic[T]):
    """The document form of one class of values."""

    def __init__(self, form: Callable[..., T], *fields: _Field) -> None:
        self._form = form
        self._fields = fields
        self._contents = attrgetter(*(field.name for field in fields))
        self._writers = tuple((field.key, field.write, field.empty) for field in fields)

    def write(self, value: T) -> Document:
        document: Document = {}
        for content, (key, write, empty) in zip(self._contents(value), self._writers, strict=True):
            if content is not empty and content != empty:
                document[key] = content if write is None else write(content)
        return document

    def read(self, document: Document, **contents: Any) -> T:
        for name, key, _, read, _ in self._fields:
            if key in document:
                content = document[key]
                contents[name] = content if read is None else read(content)
        return self._form(**contents)

    def write_all(self, values: Sequence[T]) -> list[Document]:
        return [self.write(value) for value in values]

    def read_all(self, documents: Sequence[Document]) -> tuple[T, ...]:
        return tuple(self.read(document) for document in documents)


def _text(name: str, key: str | None = None, **options: Any) -> _Field:
    return _Field(name, key or name, storable_text, text_of, **options)


def _maybe_text(name: str, key: str | None = None) -> _Field:
    return _text(name, key, empty=None)


def _whole(name: str, key: str | None = None, **options: Any) -> _Field:
    return _Field(name, key or name, _number, int, **options)


def _moment(name: str, key: str | None = None, **options: Any) -> _Field:
    return _Field(name, key or name, None, moment_of, **options)


def _flag(name: str, key: str | None = None) -> _Field:
    return _Field(name, key or name, empty=False)


_FAILURE = _Shape(
    Failure,
    _text("type"),
    _text("message"),
    _maybe_text("traceback"),
    _maybe_text("task"),
    _whole("attempts", empty=None),
)


def _write_failure(failure: Failure) -> list[Document]:
    chain: list[Document] = []
    link: Failure | None = failure
    while link is not None:
        chain.append(_FAILURE.write(link))
        link = link.cause
    return chain


def _read_failure(chain: Sequence[Document]) -> Failure | None:
    failure: Failure | None = None
    for link in reversed(chain):
        failure = _FAILURE.read(link, cause=failure)
    return failure


def _maybe_failure(name: str) -> _Field:
    return _Field(name, name, _write_failure, _read_failure, empty=None)


_WAIT = _Shape(
    Wait,
    _Field("kind", "kind", str, WaitKind),
    _text("operation", "op"),
    _moment("due_at", "due", empty=None),
    _whole("delay_ms", empty=None),
    _maybe_text("name"),
)

_INBOX_ITEM = _Shape(
    InboxItem,
    _text("id"),
    _Field("kind", "kind", str, InboxKind),
    _text("name"),
    _moment("at"),
    _whole("epoch"),
    _maybe_text("payload"),
    _maybe_failure("failure"),
    _flag("cancelled"),
    _maybe_text("worker"),
)

_PAIR = _Shape(Pair, _whole("epoch"), _text("dispatch_id", "dispatch"))

_PARENT = _Shape(Parent, _text("run_id", "run"), _text("incarnation", "inc"), _text("operation", "op"))

_ENTRY = _Shape(
    JournalEntry,
    _whole("seq"),
    _whole("epoch"),
    _moment("at"),
    _Field("kind", "kind", str, EntryKind),
    _maybe_text("operation", "op"),
    _whole("attempt", empty=None),
    _maybe_text("payload"),
    _maybe_failure("failure"),
    _maybe_text("source"),
    _maybe_text("name"),
    _moment("due_at", "due", empty=None),
    _moment("started_at", "started", empty=None),
    _maybe_text("worker"),
    _maybe_text("where"),
)

_RUN = _Shape(
    RunState,
    _text("run_id", "run"),
    _text("incarnation", "inc"),
    _whole("revision", "rev"),
    _text("workflow"),
    _text("version"),
    _text("queue"),
    _Field("status", "status", str, RunStatus),
    _moment("created_at", "created"),
    _text("requested_by"),
    _text("input"),
    _text("input_hash"),
    _Field("pair", "pair", _PAIR.write, _PAIR.read, empty=Pair(0, "")),
    _text("cause", empty=""),
    _whole("base_seq", "base", empty=0),
    _whole("learnt_seq", "learnt", empty=0),
    _maybe_text("holder"),
    _moment("started_at", "started", empty=None),
    _moment("dispatched_at", "dispatched", empty=None),
    _moment("lease_until", "lease", empty=None),
    _Field("waits", "waits", _WAIT.write_all, _WAIT.read_all, empty=()),
    _moment("wake_at", "wake", empty=None),
    _Field("inbox", "inbox", _INBOX_ITEM.write_all, _INBOX_ITEM.read_all, empty=()),
    _Field("seen", "seen", _ids, _ids_of, empty=()),
    _maybe_text("cancel_requested", "cancel"),
    _flag("pause_requested", "pause"),
    _Field("pending", "pending", _texts, _texts_of, empty=()),
    _flag("woken"),
    _Field("forgiven", "forgiven", _texts, _texts_of, empty=()),
    _whole("recoveries", empty=0),
    _whole("recoveries_max"),
    _flag("alone"),
    _maybe_text("key"),
    _maybe_text("client"),
    _Field("parent", "parent", _PARENT.write, _PARENT.read, empty=None),
    _Field("tags", "tags", _texts, _texts_of, empty=()),
    _whole("priority", empty=0),
    _maybe_text("note"),
    _Field("retention", "retention", float, float, empty=None),
    _moment("timeout_at", "timeout", empty=None),
    _maybe_text("trace"),
    _maybe_text("result"),
    _maybe_failure("failure"),
    _Field("failed_operations", "failed_ops", _texts, _texts_of, empty=()),
    _moment("finished_at", "finished", empty=None),
    _moment("expires_at", "expires", empty=None),
    _flag("expiring"),
)

_LETTER = _Shape(
    DeadLetter,
    _text("id"),
    _text("reason"),
    _moment("at"),
    _text("origin"),
    _text("body"),
    _maybe_text("run_id", "run"),
    _maybe_text("workflow"),
    _text("detail", empty=""),
)


def run_to_document(run: RunState) -> Document:
    """Write *run*, all but ``last_seq``: that is what the journal tells."""
    document = _RUN.write(run)
    document["v"] = FORMAT
    return document


def run_from_document(document: Document, *, last_seq: int = 0) -> RunState:
    """Read a run; *last_seq* is handed in, as the journal tells it.

    Raises:
        StoreError: the document is damaged, or of a format that we do not know.
    """
    return _read(_RUN, document, "run", last_seq=last_seq)


def entry_to_document(entry: JournalEntry) -> Document:
    """Write *entry*. Whose it is, is for the store to add."""
    document = _ENTRY.write(entry)
    document["v"] = FORMAT
    return document


def entry_from_document(document: Document) -> JournalEntry:
    """Read a journal entry. Raises as ``run_from_document``."""
    return _read(_ENTRY, document, "journal entry")


def letter_to_document(letter: DeadLetter) -> Document:
    """Write *letter*; of a message that no document can hold, its beginning."""
    room = LETTER_CHARACTERS_MAX
    if _quoted(letter.body[:room]) > LETTER_QUOTED_BYTES_MAX:
        room = LETTER_QUOTED_BYTES_MAX // QUOTED_BYTES_PER_CHARACTER_MAX
    if len(letter.body) > room:
        kept = f"only the first {room:,} of {len(letter.body):,} characters of the message are kept"
        letter = replace(letter, body=letter.body[:room], detail=f"{kept}; {letter.detail}")
    document = _LETTER.write(replace(letter, detail=letter.detail[:DETAIL_CHARACTERS_MAX]))
    document["v"] = FORMAT
    return document


def _quoted(text: str) -> int:
    """Tell how many bytes *text* takes in a message, where that may matter."""
    if len(text) * QUOTED_BYTES_PER_CHARACTER_MAX <= LETTER_QUOTED_BYTES_MAX:
        return 0
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))


def letter_from_document(
    document: Document,
    *,
    times: int,
    state: Literal["parked", "redriven", "discarded"],
    handled_at: datetime | None,
) -> StoredDeadLetter:
    """Read a dead letter; what was done about it is handed in. Raises as ``run_from_document``."""
    letter = _read(_LETTER, document, "dead letter")
    return StoredDeadLetter(letter=letter, times=times, state=state, handled_at=handled_at)


def _read(shape: _Shape[T], document: Document, what: str, **contents: Any) -> T:
    current = upgraded(document, UPGRADES, current=FORMAT)
    try:
        return shape.read(current, **contents)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        name = document.get("run") or document.get("id") or document.get("_id")
        raise StoreError(
            f"the stored {what} {name!r} cannot be read: {error}", hint="was it edited by hand?"
        ) from error


def dump_document(document: Document) -> str:
    """Write *document* as JSON text that UTF-8 can carry: moments in milliseconds, bytes in hexadecimal."""
    return _ENCODER.encode(document)


def load_document(text: str) -> Document:
    """Read what ``dump_document`` wrote.

    Raises:
        StoreError: it is damaged.
    """
    try:
        document = json.loads(text, object_hook=_load_other)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"a stored document cannot be read: {error}", hint="was it edited by hand?") from error
    if not isinstance(document, dict):
        raise StoreError("a stored document cannot be read: it is no object", hint="was it edited by hand?")
    return document


def _dump_other(value: object) -> object:
    if isinstance(value, datetime):
        return milliseconds_of(value)
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    raise TypeError(f"a document does not hold a {type(value).__name__}")


# Made once: to make one takes as long as to write a small document.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_dump_other)


def _load_other(value: Document) -> object:
    return bytes.fromhex(value["$bytes"]) if "$bytes" in value else value


def weigh(document: object) -> int:
    """Estimate from above how many bytes *document* takes in a store."""
    match document:
        case str():
            return len(document) + ELEMENT_BYTES if document.isascii() else len(document.encode()) + ELEMENT_BYTES
        case bytes():
            return len(document) + ELEMENT_BYTES
        case dict():
            return sum(weigh(value) + len(key) for key, value in document.items()) + ELEMENT_BYTES
        case list():
            return sum(weigh(value) for value in document) + ELEMENT_BYTES
        case _:
            return ELEMENT_BYTES
