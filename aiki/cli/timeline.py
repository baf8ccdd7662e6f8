"""The timeline of a run, made of its state and its journal: who ran when, how often, and what came of it.

Pure: two values in, one value out, and one function that draws it. An axis that
showed months of sleep to scale would show nothing else, so long stretches in which
no task executed are shortened, and marked.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from aiki.cli.wording import operation_name
from aiki.engine.journal import EntryKind, Failure, JournalEntry
from aiki.engine.state import RunState

__all__ = ["Axis", "Outcome", "Row", "Segment", "Timeline", "build_timeline"]


class Outcome(StrEnum):
    """What a stretch of time, or a whole operation, came to."""

    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"
    EXECUTING = "executing"
    VOID = "void"  # Recorded, and forgiven by a retry of the run.


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of an operation: an attempt, or a wait."""

    start: datetime
    end: datetime
    outcome: Outcome
    attempt: int | None = None
    failure: Failure | None = None
    worker: str | None = None

    @property
    def is_wait(self) -> bool:
        """Whether nothing executed in it."""
        return self.outcome is Outcome.WAITING


@dataclass(frozen=True, slots=True)
class Row:
    """One operation of the run, from first to last sight of it."""

    operation: str
    name: str
    segments: tuple[Segment, ...]
    outcome: Outcome
    note: str = ""
    where: str | None = None

    @property
    def attempts(self) -> int:
        """How many attempts are recorded."""
        return sum(segment.attempt is not None for segment in self.segments)

    @property
    def span(self) -> timedelta:
        """How long it took, waits between attempts included."""
        return self.segments[-1].end - self.segments[0].start


@dataclass(frozen=True, slots=True)
class Timeline:
    """All of a run, in the order in which things began."""

    start: datetime
    end: datetime
    rows: tuple[Row, ...]


@dataclass(slots=True)
class _Operation:
    """A row in the making."""

    operation: str
    name: str
    segments: list[Segment] = field(default_factory=list)
    outcome: Outcome = Outcome.EXECUTING
    note: str = ""
    where: str | None = None
    asked_at: datetime | None = None

    def row(self) -> Row:
        return Row(self.operation, self.name, tuple(self.segments), self.outcome, self.note, self.where)


# What an entry of this kind says of the stretch that it ends.
_ENDS = {
    EntryKind.TASK_COMPLETED: Outcome.DONE,
    EntryKind.ATTEMPT_FAILED: Outcome.FAILED,
    EntryKind.TASK_FAILED: Outcome.FAILED,
    EntryKind.CHILD_COMPLETED: Outcome.DONE,
    EntryKind.CHILD_FAILED: Outcome.FAILED,
    EntryKind.SIGNAL_RECEIVED: Outcome.DONE,
    EntryKind.TIMER_FIRED: Outcome.DONE,
}
_STARTS = {EntryKind.TASK_SCHEDULED, EntryKind.CHILD_STARTED}
_WAITS = {EntryKind.SIGNAL_RECEIVED, EntryKind.TIMER_FIRED, EntryKind.CHILD_COMPLETED, EntryKind.CHILD_FAILED}


def build_timeline(run: RunState, journal: Sequence[JournalEntry], *, now: datetime) -> Timeline:
    """Put together what *journal* says of *run*; what is not over yet lasts until *now*."""
    operations: dict[str, _Operation] = {}
    previous = run.started_at or run.created_at
    for entry in journal:
        if entry.operation is not None:
            operation = operations.setdefault(
                entry.operation, _Operation(entry.operation, operation_name(entry.operation), where=entry.where)
            )
            _take(operation, entry, previous)
        previous = entry.at

    for wait in run.waits if not run.status.is_final else ():
        operation = operations.setdefault(wait.operation, _Operation(wait.operation, operation_name(wait.operation)))
        _keep_waiting(operation, previous, now)

    start = run.created_at
    rows = sorted((operation.row() for operation in operations.values() if operation.segments), key=_began)
    ends = [segment.end for row in rows for segment in row.segments]
    end = run.finished_at or max([now, *ends])
    return Timeline(start, max([end, *ends]), tuple(rows))


def _began(row: Row) -> datetime:
    return row.segments[0].start


def _take(operation: _Operation, entry: JournalEntry, previous: datetime) -> None:
    operation.where = operation.where or entry.where
    if entry.kind is EntryKind.RETRIED:
        operation.segments = [_void(segment) for segment in operation.segments]
        operation.outcome = Outcome.EXECUTING
        operation.note = "retried"
    elif entry.kind in _STARTS:
        operation.asked_at = entry.at
    elif entry.kind in _ENDS:
        operation.segments.extend(_stretch(operation, entry, previous))
        operation.outcome = Outcome.EXECUTING if entry.kind is EntryKind.ATTEMPT_FAILED else _ENDS[entry.kind]
        operation.asked_at = None


def _stretch(operation: _Operation, entry: JournalEntry, previous: datetime) -> Iterator[Segment]:
    if entry.kind in _WAITS:
        # The moment when the run began to wait is not recorded; nothing that it awaited had happened before this one.
        start = operation.asked_at or entry.started_at or previous
        outcome = Outcome.FAILED if entry.kind is EntryKind.CHILD_FAILED else Outcome.WAITING
        yield Segment(min(start, entry.at), entry.at, outcome, failure=entry.failure)
        return

    start = min(entry.started_at or entry.at, entry.at)
    waiting_since = operation.segments[-1].end if operation.segments else operation.asked_at
    if waiting_since is not None and waiting_since < start:
        yield Segment(waiting_since, start, Outcome.WAITING)
    yield Segment(start, entry.at, _ENDS[entry.kind], entry.attempt, entry.failure, entry.worker)


def _keep_waiting(operation: _Operation, since: datetime, now: datetime) -> None:
    start = operation.segments[-1].end if operation.segments else operation.asked_at or since
    operation.segments.append(Segment(min(start, now), now, Outcome.WAITING))
    operation.outcome = Outcome.WAITING


def _void(segment: Segment) -> Segment:
    return Segment(segment.start, segment.end, Outcome.VOID, segment.attempt, segment.failure, segment.worker)


# What is shortened is shortened by much: an axis that lies has to be worth it.
_TO_SCALE = 3


class Axis:
    """Places moments on a line of *width* cells.

    A stretch in which nothing executed, and that is many times as long as everything that did, is drawn as long
    as that; ``breaks`` are the cells where this was done.
    """

    def __init__(self, timeline: Timeline, *, width: int) -> None:
        self.width = width
        busy = _merged((s.start, s.end) for row in timeline.rows for s in row.segments if not s.is_wait)
        active = sum(((end - start).total_seconds() for start, end in busy), 0.0)
        idle_max = active or None

        self._moments = [timeline.start]
        self._places = [0.0]
        shortened: list[int] = []
        for start, end in [*busy, (timeline.end, timeline.end)]:
            idle = max((start - self._moments[-1]).total_seconds(), 0.0)
            if idle_max is not None and idle > _TO_SCALE * idle_max:
                idle = idle_max
                shortened.append(len(self._places))
            self._add(start, idle)
            self._add(end, (end - start).total_seconds())
        scale = width / self._places[-1] if self._places[-1] else 0.0
        self._places = [place * scale for place in self._places]
        self.breaks = frozenset(int((self._places[i - 1] + self._places[i]) / 2) for i in shortened)

    def _add(self, moment: datetime, length: float) -> None:
        self._moments.append(max(moment, self._moments[-1]))
        self._places.append(self._places[-1] + length)

    def cells(self, start: datetime, end: datetime) -> range:
        """Tell the cells of a stretch; however short, it has one."""
        first = min(int(self.place(start)), self.width - 1)
        last = min(max(int(self.place(end) + 0.5), first + 1), self.width)
        return range(first, last)

    def place(self, moment: datetime) -> float:
        """Tell where *moment* is, from 0 to ``width``."""
        index = bisect_left(self._moments, moment, 1, len(self._moments) - 1)
        before, after = self._moments[index - 1], self._moments[index]
        if moment >= after:
            return self._places[index]
        share = max((moment - before) / (after - before), 0.0)
        return self._places[index - 1] + share * (self._places[index] - self._places[index - 1])


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
