"""What every store decides about a change, whatever it keeps runs in."""

from collections.abc import Iterable
from enum import Enum, auto

from aiki.codec.documents import DOCUMENT_BYTES_MAX, entry_to_document, run_to_document, weigh
from aiki.engine.ids import partition_of
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.errors import RunTooLargeError
from aiki.ports.store import RunChange

__all__ = ["Conflict", "base_of", "refuse_oversized", "settle", "slot_of"]

SLOTS = 2**32

# Below these nothing can come near the limit, and weighing would cost more than writing.
CHARACTERS_SURELY_FIT = 1024 * 1024
ITEMS_SURELY_FIT = 1000


class Conflict(Enum):
    """What follows when the place of a journal entry is taken."""

    KEPT = auto()
    REPLACEABLE = auto()
    STALE = auto()


def settle(there: JournalEntry, entry: JournalEntry, *, base_seq: int) -> Conflict:
    """Tell what *there* means for *entry*, which wants its place in the journal.

    The same entry is there when a commit is given again, or an event was delivered twice. What an
    older epoch left above *base_seq* was never accepted by anybody, and readers ignore it (rule 6).
    Everything else was written by somebody who knows more than we do.
    """
    if entry_to_document(there) == entry_to_document(entry):  # Flat, however long a chain of causes is.
        return Conflict.KEPT
    if there.epoch < entry.epoch and entry.seq > base_seq:
        return Conflict.REPLACEABLE
    return Conflict.STALE


def base_of(change: RunChange) -> int:
    """Tell up to where the journal is settled for *change*.

    Not ``after.base_seq``: a batch may append entries and then make a new dispatch, whose base
    covers the very entries that have still to find their places.
    """
    return 0 if change.before is None else change.before.base_seq


def slot_of(run_id: str) -> int:
    """Hash *run_id* so that ``slot % partitions`` is its partition, for any number of partitions."""
    return partition_of(run_id, SLOTS)


def refuse_oversized(changes: Iterable[RunChange]) -> None:
    """Look for runs that would not fit into a document, before anything is written.

    Raises:
        RunTooLargeError: the first of them.
    """
    for change in changes:
        if not change.writes_run or _surely_fits(change.after):
            continue
        size = weigh(run_to_document(change.after))
        if size > DOCUMENT_BYTES_MAX:
            raise RunTooLargeError(change.after.run_id, size=size, bytes_max=DOCUMENT_BYTES_MAX)


def _surely_fits(run: RunState) -> bool:
    characters = len(run.input) + len(run.result or "") + len(run.note or "")
    ids = (run.seen, run.pending, run.tags)
    simple = not (run.inbox or run.waits or run.forgiven or run.failed_operations) and run.failure is None
    return simple and characters < CHARACTERS_SURELY_FIT and sum(map(len, ids)) < ITEMS_SURELY_FIT
