"""Events: facts in the past tense, on their way to the run that they are about.

Every event has an ``id`` that stays the same however often it is sent, and the
sender's time ``at``. Those of a worker carry the pair of the dispatch that they
speak for; those of a client are counted once, by their id.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aiki.engine.journal import Failure, JournalEntry, Wait
from aiki.engine.payload import Payload
from aiki.engine.state import Pair, Parent

__all__ = [
    "CancelRequested",
    "ChildFinished",
    "ClientEvent",
    "DispatchDoubted",
    "Event",
    "JournalAppended",
    "LeaseRenewed",
    "PauseRequested",
    "ResumeRequested",
    "RetryRequested",
    "RunCompleted",
    "RunFailed",
    "RunOrphaned",
    "RunRequested",
    "RunStarted",
    "RunSuspended",
    "SignalSent",
    "TaskFinished",
    "TaskScheduled",
    "TimerFired",
    "WakeRequested",
    "WorkerEvent",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequested:
    """Somebody wants a run. It is accepted once, however often it is asked for."""

    type: Literal["RunRequested"] = "RunRequested"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    workflow: str
    version: str
    queue: str
    input: Payload
    input_hash: str
    key: str | None = None
    client: str | None = None
    """The address of the asking client: its outcome notice goes there."""
    answer: bool = False
    """Whether the client waits to hear that the run is stored."""
    start_at: datetime | None = None
    timeout_at: datetime | None = None
    recoveries_max: int = 3
    priority: int = 0
    tags: tuple[str, ...] = ()
    retention: float | None = None
    parent: Parent | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A worker took the dispatch and is going to execute it. The first one accepted is its holder."""

    type: Literal["RunStarted"] = "RunStarted"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalAppended:
    """The holder learnt something."""

    type: Literal["JournalAppended"] = "JournalAppended"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    entries: tuple[JournalEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScheduled:
    """The holder wants a task executed by the workers of another queue, and journals that it asked."""

    type: Literal["TaskScheduled"] = "TaskScheduled"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    entry: JournalEntry | None
    """``None`` when the entry is in the journal already and only the command has to be sent again."""
    task_id: str
    queue: str
    task: str
    operation: str
    attempt: int
    input: Payload
    idempotency_key: str
    timeout: float | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSuspended:
    """The holder gives the run back: nothing can go on before one of *waits* is over.

    With ``ready`` it could go on at once, and is given back because its worker stops or was asked to pause it.
    """

    type: Literal["RunSuspended"] = "RunSuspended"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    last_seq: int
    waits: tuple[Wait, ...] = ()
    wake_at: datetime | None = None
    ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCompleted:
    """The workflow returned."""

    type: Literal["RunCompleted"] = "RunCompleted"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    last_seq: int
    result: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """The workflow raised, or was cancelled, or no longer fits its record."""

    type: Literal["RunFailed"] = "RunFailed"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    last_seq: int
    failure: Failure
    cancelled: bool = False
    operations: tuple[str, ...] = ()
    """The operations whose recorded failures led to this end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrphaned:
    """A dispatch came to a worker that may have been started by another one, now gone."""

    type: Literal["RunOrphaned"] = "RunOrphaned"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    handed_back: bool = False
    """Given back unexecuted by a worker that stops: says nothing against the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """The holder goes on without its command, which it acknowledges once this is confirmed."""

    type: Literal["LeaseRenewed"] = "LeaseRenewed"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    worker: str
    until: datetime
    """By the clock of the worker, as ``at`` is: what counts is how much later it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """A moment that the run had named has come: a wake-up, the end of a lease, the end of its time."""

    type: Literal["TimerFired"] = "TimerFired"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchDoubted:
    """A marker behind the backlog: whatever its dispatch led to has been heard when it arrives.

    With ``queues_lost`` it doubts as well what the run started elsewhere and waits for: the broker kept nothing.
    """

    type: Literal["DispatchDoubted"] = "DispatchDoubted"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    pair: Pair
    queues_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSent:
    """Somebody sent the run a message."""

    type: Literal["SignalSent"] = "SignalSent"
    id: str
    run_id: str
    at: datetime
    name: str
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFinished:
    """A child run reached its end. Matched by the child's id, never by the parent's epoch."""

    type: Literal["ChildFinished"] = "ChildFinished"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    child_id: str
    payload: Payload | None = None
    failure: Failure | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished:
    """A task that was sent to another worker ended. Matched by the task's id."""

    type: Literal["TaskFinished"] = "TaskFinished"
    id: str
    run_id: str
    at: datetime
    incarnation: str
    task_id: str
    worker: str
    started_at: datetime | None = None
    payload: Payload | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """Somebody wants the run to stop."""

    type: Literal["CancelRequested"] = "CancelRequested"
    id: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested:
    """Somebody wants the run to start nothing new until it is resumed."""

    type: Literal["PauseRequested"] = "PauseRequested"
    id: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequested:
    """Somebody wants a paused run to go on."""

    type: Literal["ResumeRequested"] = "ResumeRequested"
    id: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeRequested:
    """Somebody wants a suspended run to go on now: its nearest timer or retry counts as due."""

    type: Literal["WakeRequested"] = "WakeRequested"
    id: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequested:
    """Somebody wants a failed, cancelled or dead-lettered run to try again from where it ended."""

    type: Literal["RetryRequested"] = "RetryRequested"
    id: str
    run_id: str
    at: datetime


WorkerEvent = (
    RunStarted | JournalAppended | TaskScheduled | RunSuspended | RunCompleted | RunFailed | RunOrphaned | LeaseRenewed
)
"""What a worker says of a dispatch: refused unless it carries the current pair."""

ClientEvent = SignalSent | CancelRequested | PauseRequested | ResumeRequested | WakeRequested | RetryRequested
"""What a client says of a run by its id: counted once."""

Event = RunRequested | WorkerEvent | TimerFired | DispatchDoubted | ChildFinished | TaskFinished | ClientEvent
