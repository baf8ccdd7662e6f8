"""Queries: what clients and workers may ask an orchestrator, and what it answers.

The orchestrator is the only part that knows the store; everybody else reads through it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from aiki.engine.commands import DeadLetter
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = [
    "Answer",
    "DeadLetterFound",
    "DeadLetterPage",
    "DiscardDeadLetter",
    "FindRuns",
    "GetDeadLetter",
    "GetJournal",
    "GetRun",
    "GetStats",
    "JournalPage",
    "ListDeadLetters",
    "PresenceNoted",
    "Query",
    "QueryFailed",
    "RedriveDeadLetter",
    "ReportPresence",
    "RunFilter",
    "RunFound",
    "RunPage",
    "Stats",
    "StoredDeadLetter",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list: all conditions hold. Newest first."""

    workflow: str | None = None
    version: str | None = None
    statuses: tuple[RunStatus, ...] = ()
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRun:
    """One run by its id. Answered by ``RunFound``."""

    type: Literal["GetRun"] = "GetRun"
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindRuns:
    """A page of runs. Answered by ``RunPage``; *cursor* continues where a page ended."""

    type: Literal["FindRuns"] = "FindRuns"
    filter: RunFilter = RunFilter()
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetJournal:
    """Journal entries of a run with ``seq > after_seq``. Answered by ``JournalPage``."""

    type: Literal["GetJournal"] = "GetJournal"
    run_id: str
    after_seq: int = 0
    limit: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStats:
    """Counts of runs by workflow and status, orchestrators and workers present. Answered by ``Stats``."""

    type: Literal["GetStats"] = "GetStats"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDeadLetters:
    """A page of dead letters, newest first. Answered by ``DeadLetterPage``."""

    type: Literal["ListDeadLetters"] = "ListDeadLetters"
    limit: int = 50
    cursor: str | None = None
    include_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDeadLetter:
    """One dead letter. Answered by ``DeadLetterFound``."""

    type: Literal["GetDeadLetter"] = "GetDeadLetter"
    letter_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveDeadLetter:
    """Send a dead letter's run, or its message, on its way again. Answered by ``DeadLetterFound``."""

    type: Literal["RedriveDeadLetter"] = "RedriveDeadLetter"
    letter_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardDeadLetter:
    """Mark a dead letter as done with. Answered by ``DeadLetterFound``."""

    type: Literal["DiscardDeadLetter"] = "DiscardDeadLetter"
    letter_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPresence:
    """A worker says that it is there and what it serves. Answered by ``PresenceNoted``."""

    type: Literal["ReportPresence"] = "ReportPresence"
    worker: str
    queues: tuple[str, ...]
    slots: int
    busy: int
    host: str
    process_id: int
    started_at: datetime
    seconds: float
    """How long this holds without being said again; 0: the worker is leaving."""


Query = (
    GetRun
    | FindRuns
    | GetJournal
    | GetStats
    | ListDeadLetters
    | GetDeadLetter
    | RedriveDeadLetter
    | DiscardDeadLetter
    | ReportPresence
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFound:
    """The run, or ``None`` where there is none.

    Where a message has no room for all of it, the items of its inbox come without what they bring. So in ``RunPage``.
    """

    type: Literal["RunFound"] = "RunFound"
    run: RunState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Runs, and the cursor of the next page."""

    type: Literal["RunPage"] = "RunPage"
    runs: tuple[RunState, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPage:
    """Entries in order of ``seq``; ``complete`` when no more follow."""

    type: Literal["JournalPage"] = "JournalPage"
    entries: tuple[JournalEntry, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What is there."""

    type: Literal["Stats"] = "Stats"
    runs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Workflow → status → count."""
    orchestrators: tuple[Mapping[str, Any], ...] = ()
    workers: tuple[Mapping[str, Any], ...] = ()
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDeadLetter:
    """A dead letter and what was done about it."""

    letter: DeadLetter
    times: int = 1
    state: Literal["parked", "redriven", "discarded"] = "parked"
    handled_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """Dead letters, and the cursor of the next page."""

    type: Literal["DeadLetterPage"] = "DeadLetterPage"
    letters: tuple[StoredDeadLetter, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFound:
    """The dead letter, or ``None`` where there is none."""

    type: Literal["DeadLetterFound"] = "DeadLetterFound"
    letter: StoredDeadLetter | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceNoted:
    """The report was stored."""

    type: Literal["PresenceNoted"] = "PresenceNoted"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFailed:
    """The query could not be answered, and why."""

    type: Literal["QueryFailed"] = "QueryFailed"
    reason: str


Answer = RunFound | RunPage | JournalPage | Stats | DeadLetterPage | DeadLetterFound | PresenceNoted | QueryFailed
