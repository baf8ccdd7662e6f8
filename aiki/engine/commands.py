"""Commands: orders that follow from a decision, on their way out.

The engine says what has to be sent; where it goes (which exchange, which queue)
is the adapter's knowledge. Sending a command twice must do no harm, except for
``ExecuteRun``, which is never sent twice: a dispatch whose publish is uncertain
is replaced by a new one with a new pair (rule 1).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from aiki.engine.events import Event
from aiki.engine.journal import Failure, InboxItem, JournalEntry, Wait
from aiki.engine.payload import Payload
from aiki.engine.state import Pair, Parent
from aiki.engine.status import RunStatus

__all__ = [
    "AnnounceAcceptance",
    "AnnounceOutcome",
    "AnnounceProgress",
    "ArmTimer",
    "Command",
    "DeadLetter",
    "ExecuteRun",
    "ExecuteTask",
    "Notice",
    "NotifyWorker",
    "ParkDeadLetter",
    "SendEvent",
    "WorkerCommand",
    "WorkerNotice",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteRun:
    """Replay a run and go on with it. Holds all that the worker needs to know.

    The engine leaves ``journal`` empty; the orchestrator fills it in from the store before it sends.
    """

    type: Literal["ExecuteRun"] = "ExecuteRun"
    queue: str
    run_id: str
    incarnation: str
    pair: Pair
    workflow: str
    version: str
    input: Payload
    now: datetime
    """The orchestrator's time: the worker uses the later of this and its own clock."""
    created_at: datetime
    started_at: datetime | None = None
    base_seq: int = 0
    """How many journal entries belong to this dispatch."""
    journal: tuple[JournalEntry, ...] = ()
    """The entries from 1 on; where there are fewer than ``base_seq``, the rest is asked for in pages."""
    waits: tuple[Wait, ...] = ()
    """What the run waited for when it was suspended: deadlines that stay as they were."""
    inbox: tuple[InboxItem, ...] = ()
    cancel_requested: str | None = None
    woken: bool = False
    """The nearest timer or retry counts as due."""
    forgiven: tuple[str, ...] = ()
    """Operations to journal as ``RETRIED`` before anything else."""
    recovered: bool = False
    """An earlier holder was lost: nothing new may start before the broker confirmed ``RunStarted``."""
    alone: bool = False
    """Execute with nothing beside it."""
    key: str | None = None
    parent: Parent | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    timeout_at: datetime | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteTask:
    """Execute one attempt of a task for a run that is held, or waits, elsewhere."""

    type: Literal["ExecuteTask"] = "ExecuteTask"
    queue: str
    run_id: str
    incarnation: str
    task_id: str
    task: str
    operation: str
    attempt: int
    input: Payload
    idempotency_key: str
    timeout: float | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTimer:
    """Send *event* back into its partition after *delay_ms*, a value of the retry grid."""

    type: Literal["ArmTimer"] = "ArmTimer"
    event: Event
    delay_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendEvent:
    """Send *event* into the partition of its run, behind what is there."""

    type: Literal["SendEvent"] = "SendEvent"
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceAcceptance:
    """Tell the asking client that its run is stored, or which run its key stands for already."""

    type: Literal["AnnounceAcceptance"] = "AnnounceAcceptance"
    client: str
    request_id: str
    run_id: str
    workflow: str
    version: str
    status: RunStatus
    input_hash: str
    existing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceOutcome:
    """Tell whoever watches that a run is over, and how."""

    type: Literal["AnnounceOutcome"] = "AnnounceOutcome"
    client: str | None
    run_id: str
    workflow: str
    version: str
    status: RunStatus
    input_hash: str
    at: datetime
    result: Payload | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceProgress:
    """Tell whoever watches that a run moved."""

    type: Literal["AnnounceProgress"] = "AnnounceProgress"
    run_id: str
    workflow: str
    version: str
    status: RunStatus
    at: datetime
    note: Payload | None = None


class WorkerNotice(StrEnum):
    """What an orchestrator has to tell one worker."""

    FENCED = "fenced"  # You do not hold this dispatch (any more): stop, and record nothing.
    CANCEL = "cancel"
    PAUSE = "pause"
    ARRIVED = "arrived"  # Something arrived for a run that you hold.
    DOUBTED = "doubted"  # Nobody can tell whether you still hold this dispatch: say so if you do not.


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyWorker:
    """Tell one worker something about a run that it holds, or believes to hold."""

    type: Literal["NotifyWorker"] = "NotifyWorker"
    worker: str
    run_id: str
    pair: Pair
    notice: WorkerNotice
    source: str | None = None
    """The id of the client's event, for ``CANCEL``."""
    items: tuple[InboxItem, ...] = ()
    incarnation: str = ""
    """That of the run, for ``DOUBTED``: the answer has to name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What could not be delivered, decoded, applied or survived, and why."""

    id: str
    """Stays the same when the same letter is parked again."""
    reason: str
    at: datetime
    origin: str
    """The queue where it was found."""
    body: str
    """The original message as text; bytes that are not UTF-8 are escaped with a backslash."""
    run_id: str | None = None
    workflow: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkDeadLetter:
    """Keep *letter* where people look for what went wrong."""

    type: Literal["ParkDeadLetter"] = "ParkDeadLetter"
    letter: DeadLetter


Notice = AnnounceAcceptance | AnnounceOutcome | AnnounceProgress
WorkerCommand = ExecuteRun | ExecuteTask
Command = WorkerCommand | ArmTimer | SendEvent | Notice | NotifyWorker | ParkDeadLetter
