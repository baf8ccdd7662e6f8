"""What a run has recorded, and what of it fits the code: replay without I/O and without asyncio.

Entries are found by the operation that they name, so their position does not
matter, and are handed out in the order of ``seq`` among those that somebody has
asked for. When nothing can be handed out any more, what is left over tells whether
the code still fits the record.
"""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from aiki.engine.journal import EntryKind, JournalEntry

__all__ = ["MARKS", "History"]

MARKS = frozenset({EntryKind.ATTEMPT_FAILED, EntryKind.TASK_SCHEDULED, EntryKind.CHILD_STARTED, EntryKind.STATUS_SET})
"""What is known of an operation without ending it."""

# These happen to a run of any shape: there is no change of code that they could contradict.
_NEVER_LEFT_OVER = frozenset(
    {
        EntryKind.TIMER_FIRED,
        EntryKind.CLOCK,
        EntryKind.STATUS_SET,
        EntryKind.RETRIED,
        EntryKind.CANCEL_REQUESTED,
    }
)

# What ends an operation in such a way that a retry of the run may make it void.
_FAILURES = frozenset({EntryKind.TASK_FAILED, EntryKind.CHILD_FAILED, EntryKind.CANCEL_REQUESTED})

_LAUNCHES = frozenset({EntryKind.TASK_SCHEDULED, EntryKind.CHILD_STARTED})


class History:
    """The journal of a run while it is replayed, and after that."""

    def __init__(self, entries: Sequence[JournalEntry]) -> None:
        """*entries* are in order of ``seq`` and without gaps."""
        self.high = 0
        """The highest ``seq`` that was consumed."""
        self.last_seq = 0
        self.sources: set[str] = set()
        """What entries answer: inbox items and requests named here are dead."""
        self.cancellations = 0
        self._void_until = {e.operation: e.seq for e in entries if e.kind is EntryKind.RETRIED}
        self._open: dict[int, JournalEntry] = {}
        self._by_operation: dict[str, list[JournalEntry]] = {}
        self._known: set[str] = set()
        self._launches: dict[str, int] = {}
        self._excused: list[range] = []
        self._asked: set[str] = set()
        self._consumable: list[int] = []
        for entry in entries:
            self._take_in(entry)

    def append(self, entries: Iterable[JournalEntry]) -> None:
        """Go on with entries that have just been made, and are on their way to be confirmed."""
        for entry in entries:
            self._take_in(entry)
            if entry.operation in self._asked:
                self._offer(entry)

    def _take_in(self, entry: JournalEntry) -> None:
        self.last_seq = entry.seq
        if entry.source is not None and entry.kind not in _LAUNCHES:
            self.sources.add(entry.source)
        if entry.kind is EntryKind.CANCEL_REQUESTED:
            self.cancellations += 1
        operation = entry.operation
        if operation is None:
            self._open[entry.seq] = entry
            heappush(self._consumable, entry.seq)
            return
        self._known.add(operation)
        if entry.kind in _LAUNCHES:
            self._launches[operation] = self._launches.get(operation, 0) + 1
        void_until = self._void_until.get(operation, 0)
        if entry.seq < void_until:
            self._void(entry, void_until)
        elif entry.kind is EntryKind.CANCEL_REQUESTED:
            self._open[entry.seq] = entry
            heappush(self._consumable, entry.seq)
        elif entry.kind is not EntryKind.RETRIED:
            self._open[entry.seq] = entry
            self._by_operation.setdefault(operation, []).append(entry)

    def _void(self, entry: JournalEntry, until: int) -> None:
        # After a failure that a retry made void the run took a path that it need not take again.
        if entry.kind in _FAILURES:
            self._excused.append(range(entry.seq, until))

    def ask(self, operation: str) -> Sequence[JournalEntry]:
        """Somebody asks for *operation*: whatever ends it may be handed out from now on.

        Gives everything that is recorded of it and not void.
        """
        self._asked.add(operation)
        entries = self._by_operation.get(operation, ())
        for entry in entries:
            self._offer(entry)
        return entries

    def _offer(self, entry: JournalEntry) -> None:
        if entry.kind in MARKS:
            self._consume(entry.seq)
        else:
            heappush(self._consumable, entry.seq)

    @property
    def has_next(self) -> bool:
        """Whether there is something to hand out."""
        return bool(self._consumable)

    def next(self) -> JournalEntry | None:
        """Hand out the next entry that somebody waits for, in order of ``seq``."""
        return self._consume(heappop(self._consumable)) if self._consumable else None

    def _consume(self, seq: int) -> JournalEntry:
        self.high = max(self.high, seq)
        return self._open.pop(seq)

    def pass_by(self, seq: int) -> None:
        """Count everything up to *seq* as passed: the run is known to have come that far."""
        self.high = max(self.high, seq)

    def knows(self, operation: str) -> bool:
        """Whether anything was ever recorded of *operation*, void or not."""
        return operation in self._known

    def launches(self, operation: str) -> int:
        """How often *operation* was sent to another worker or started as a child, whatever became of it."""
        return self._launches.get(operation, 0)

    def left_over(self) -> list[JournalEntry]:
        """What is recorded, was not asked for, and cannot be explained."""
        return [
            entry
            for entry in self._open.values()
            if entry.kind not in _NEVER_LEFT_OVER and not any(entry.seq in excused for excused in self._excused)
        ]
