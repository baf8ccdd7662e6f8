"""The journal: the ordered list of what a run has learnt.

It is written by the holder of a run alone, insert only. An *operation* is what a
workflow asked for, named ``address#n``: the address is its kind, its name and a
digest of its input, ``n`` counts equal addresses in the order of asking.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from aiki.engine.payload import Payload

__all__ = ["EntryKind", "Failure", "InboxItem", "InboxKind", "JournalEntry", "Wait", "WaitKind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception of the user's code, as it is recorded."""

    type: str
    """The name of the exception's class, with its module unless it is a builtin."""
    message: str
    traceback: str | None = None
    cause: "Failure | None" = None
    task: str | None = None
    """The task that failed, where the failure is one of a task."""
    attempts: int | None = None


class EntryKind(StrEnum):
    """What an entry tells. Each kind states which of the optional fields it fills."""

    TASK_COMPLETED = "task_completed"  # operation, attempt, payload (result)
    TASK_FAILED = "task_failed"  # operation, attempt, failure: the final one
    ATTEMPT_FAILED = "attempt_failed"  # operation, attempt, failure, due_at (of the next attempt)
    TASK_SCHEDULED = "task_scheduled"  # operation, attempt, source (task id), name (queue)
    CHILD_STARTED = "child_started"  # operation, attempt, source (run id of the child)
    CHILD_COMPLETED = "child_completed"  # operation, payload, source (inbox item)
    CHILD_FAILED = "child_failed"  # operation, failure, source (inbox item)
    SIGNAL_RECEIVED = "signal_received"  # operation, payload, name, source (inbox item)
    TIMER_FIRED = "timer_fired"  # operation
    CLOCK = "clock"  # nothing: logical time moves to its stamp
    CANCEL_REQUESTED = "cancel_requested"  # source (event id)
    STATUS_SET = "status_set"  # operation, payload (what the workflow says of itself)
    RETRIED = "retried"  # operation: everything recorded of it so far is void


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One thing that a run has learnt. ``seq`` starts at 1 and has no gaps."""

    seq: int
    epoch: int
    at: datetime
    kind: EntryKind
    operation: str | None = None
    attempt: int | None = None
    payload: Payload | None = None
    failure: Failure | None = None
    source: str | None = None
    """What the entry answers: an inbox item, a child's run id, a task id. An item named here is consumed."""
    name: str | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    """When the attempt began, for the timeline; ``at`` is when it ended."""
    worker: str | None = None
    where: str | None = None
    """The line of the workflow that asked, as ``file.py:42 in function``."""


class WaitKind(StrEnum):
    """What a suspended run waits for."""

    TIMER = "timer"
    RETRY = "retry"
    SIGNAL = "signal"
    CHILD = "child"
    TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that a suspended run waits for."""

    kind: WaitKind
    operation: str
    due_at: datetime | None = None
    """When it is over by itself: fixed at the first suspension, whatever the code says later."""
    delay_ms: int | None = None
    """The retry delay on the grid, for a wait of kind ``retry``."""
    name: str | None = None
    """The signal's name, the child's run id, the task id."""


class InboxKind(StrEnum):
    """What kind of thing arrived for a run."""

    SIGNAL = "signal"
    CHILD = "child"
    TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxItem:
    """Something that arrived for a run and is live as long as no journal entry names its ``id`` as source."""

    id: str
    kind: InboxKind
    name: str
    """The signal's name, or the id of the child run or task that finished."""
    at: datetime
    epoch: int
    """The run's epoch when it arrived: a dispatch of a later epoch has carried it along."""
    payload: Payload | None = None
    failure: Failure | None = None
    cancelled: bool = False
    worker: str | None = None
