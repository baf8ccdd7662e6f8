"""The statuses of a run, and the one table of how they follow each other.

The table is checked by the engine's property tests, and the picture in the
documentation is drawn from it. A transition that is not here does not happen.
"""

from enum import StrEnum

__all__ = ["FINAL", "SUSPENDED", "TRANSITIONS", "RunStatus"]


class RunStatus(StrEnum):
    """Where a run stands."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SLEEPING = "sleeping"
    AWAITING_RETRY = "awaiting_retry"
    AWAITING_SIGNAL = "awaiting_signal"
    AWAITING_CHILD = "awaiting_child"
    AWAITING_TASK = "awaiting_task"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead_lettered"

    @property
    def is_final(self) -> bool:
        """Whether the run is over, as far as the engine will move it by itself."""
        return self in FINAL

    @property
    def is_suspended(self) -> bool:
        """Whether the run waits without a worker: a document and nothing else."""
        return self in SUSPENDED


FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD_LETTERED})
SUSPENDED = frozenset(
    {
        RunStatus.SLEEPING,
        RunStatus.AWAITING_RETRY,
        RunStatus.AWAITING_SIGNAL,
        RunStatus.AWAITING_CHILD,
        RunStatus.AWAITING_TASK,
    }
)

_QUEUED = frozenset({RunStatus.QUEUED})
_TIMED_OUT = frozenset({RunStatus.FAILED})

_WAKING = {
    "TimerFired": _QUEUED | _TIMED_OUT,
    "WakeRequested": _QUEUED,
    "SignalSent": _QUEUED,
    "ChildFinished": _QUEUED,
    "DispatchDoubted": _QUEUED,
    "TaskFinished": _QUEUED,
    "CancelRequested": _QUEUED,
    "PauseRequested": frozenset({RunStatus.PAUSED}),
}

# What a holder says that does not fit what is recorded counts like its loss: the pair is fenced.
_LOST = frozenset({RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.DEAD_LETTERED})
_HELD = {
    "JournalAppended": _LOST,
    "TaskScheduled": _LOST,
    "RunSuspended": _LOST | SUSPENDED,
    "RunCompleted": _LOST | {RunStatus.COMPLETED},
    "RunFailed": _LOST | {RunStatus.FAILED, RunStatus.CANCELLED},
    "RunOrphaned": _LOST,
    "TimerFired": _LOST | _TIMED_OUT,
}

TRANSITIONS: dict[RunStatus | None, dict[str, frozenset[RunStatus]]] = {
    None: {"RunRequested": frozenset({RunStatus.SCHEDULED, RunStatus.QUEUED})},
    RunStatus.SCHEDULED: {
        "TimerFired": _QUEUED | _TIMED_OUT,
        "WakeRequested": _QUEUED,
        "PauseRequested": frozenset({RunStatus.PAUSED}),
        "CancelRequested": frozenset({RunStatus.CANCELLED}),
    },
    RunStatus.QUEUED: {
        "RunStarted": frozenset({RunStatus.RUNNING}),
        "PauseRequested": frozenset({RunStatus.PAUSED}),
        "CancelRequested": frozenset({RunStatus.CANCELLED}),
        "RunOrphaned": frozenset({RunStatus.PAUSED, RunStatus.DEAD_LETTERED}),
        "TimerFired": _TIMED_OUT,
    },
    RunStatus.RUNNING: _HELD,
    **dict.fromkeys(sorted(SUSPENDED), _WAKING),
    RunStatus.PAUSED: {
        "ResumeRequested": frozenset({RunStatus.QUEUED, RunStatus.SCHEDULED}),
        "CancelRequested": frozenset({RunStatus.QUEUED, RunStatus.CANCELLED}),
        "TimerFired": _TIMED_OUT,
    },
    RunStatus.COMPLETED: {},
    RunStatus.FAILED: {"RetryRequested": _QUEUED},
    RunStatus.CANCELLED: {"RetryRequested": _QUEUED},
    RunStatus.DEAD_LETTERED: {"RetryRequested": _QUEUED},
}
"""Status → type of event → the statuses that it may lead to. ``None`` is a run that is not there yet."""
