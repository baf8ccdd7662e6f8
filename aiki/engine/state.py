"""A run is a value: everything the engine remembers of one run, frozen."""

from dataclasses import dataclass
from datetime import datetime

from aiki.engine.journal import Failure, InboxItem, Wait
from aiki.engine.payload import Payload
from aiki.engine.status import RunStatus

__all__ = ["Pair", "Parent", "RunState"]


@dataclass(frozen=True, slots=True)
class Pair:
    """What fences a dispatch: a counter that only grows, and an id that nobody can guess.

    It is fixed for the life of a dispatch. What does not carry the current pair is refused.
    """

    epoch: int
    dispatch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The run and the operation that started a child run."""

    run_id: str
    incarnation: str
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run, between two events. ``revision`` guards every write of it."""

    run_id: str
    incarnation: str
    workflow: str
    version: str
    queue: str
    input: Payload
    input_hash: str
    status: RunStatus
    created_at: datetime
    requested_by: str
    """The id of the event that created the run."""

    pair: Pair = Pair(0, "")
    """The current dispatch, or the last one where there is none: final and suspended runs keep it."""
    cause: str = ""
    """The id of the event that caused the current dispatch."""
    base_seq: int = 0
    """How far the journal went when the current pair was made; entries above it of an older epoch do not count.

    The clock entries that a resumed run begins with are taken in: they say nothing new, so they are no progress.
    """
    last_seq: int = 0
    """How far the journal goes now. Derived from the journal; never a reason to write the run."""
    learnt_seq: int = 0
    """Up to where the entries that change more than the journal have done so: said again, they do not do it again."""
    holder: str | None = None
    """The worker whose ``RunStarted`` was accepted for the current pair."""
    started_at: datetime | None = None
    """Where logical time starts: the first start from which something was recorded."""
    dispatched_at: datetime | None = None
    lease_until: datetime | None = None

    waits: tuple[Wait, ...] = ()
    wake_at: datetime | None = None
    inbox: tuple[InboxItem, ...] = ()
    seen: tuple[str, ...] = ()
    """The ids of the client events that were counted, for life."""
    cancel_requested: str | None = None
    """The id of the event that asked for it."""
    pause_requested: bool = False
    pending: tuple[str, ...] = ()
    """Tasks on other workers and child runs that were started and whose end is not journaled yet, by their ids."""
    woken: bool = False
    """Somebody asked for the nearest timer or retry to count as due, and nothing was journaled since."""
    forgiven: tuple[str, ...] = ()
    """Operations whose recorded failures a retry of the run makes void, not yet journaled."""

    recoveries: int = 0
    """Dispatches in a row that were started, journaled nothing and lost their worker."""
    recoveries_max: int = 3
    alone: bool = False
    """The current dispatch is under suspicion and executes with nothing beside it."""

    key: str | None = None
    client: str | None = None
    """Where the outcome is announced besides the topic: the client that asked first."""
    parent: Parent | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    note: Payload | None = None
    """What the workflow last said of itself (``run.set_status``)."""
    retention: float | None = None
    """Seconds that a finished run is kept; ``None``: the orchestrator's default."""
    timeout_at: datetime | None = None
    """When the whole run is failed for taking too long."""
    trace: str | None = None
    """The W3C traceparent of the request."""

    result: Payload | None = None
    failure: Failure | None = None
    failed_operations: tuple[str, ...] = ()
    """The operations whose failures ended the run: what a retry forgives."""
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    expiring: bool = False
    revision: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When the owner of the partition has to look at this run again, if nothing else happens."""
        if self.status.is_final:
            return None
        wake_at = None if self.status is RunStatus.PAUSED else self.wake_at
        times = [moment for moment in (wake_at, self.lease_until, self.timeout_at) if moment is not None]
        return min(times, default=None)
