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

_WAKING = {
    "TimerFired": frozenset({RunStatus.QUEUED}),
    "WakeRequested": frozenset({RunStatus.QUEUED}),
    "SignalSent": frozenset({RunStatus.QUEUED}),
    "ChildFinished": frozenset({RunStatus.QUEUED}),
    "TaskFinished": frozenset({RunStatus.QUEUED}),
    "CancelRequested": frozenset({RunStatus.QUEUED}),
    "PauseRequested": frozenset({RunStatus.PAUSED}),
}

_LEAVING_A_WORKER = {
    "RunSuspended": SUSPENDED | {RunStatus.QUEUED, RunStatus.PAUSED},
    "RunCompleted": frozenset({RunStatus.COMPLETED}),
    "RunFailed": frozenset({RunStatus.FAILED, RunStatus.CANCELLED}),
    "RunOrphaned": frozenset({RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.DEAD_LETTERED}),
    "TimerFired": frozenset({RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.DEAD_LETTERED}),
}

TRANSITIONS: dict[RunStatus | None, dict[str, frozenset[RunStatus]]] = {
    None: {"RunRequested": frozenset({RunStatus.SCHEDULED, RunStatus.QUEUED})},
    RunStatus.SCHEDULED: {
        "TimerFired": frozenset({RunStatus.QUEUED}),
        "WakeRequested": frozenset({RunStatus.QUEUED}),
        "PauseRequested": frozenset({RunStatus.PAUSED}),
        "CancelRequested": frozenset({RunStatus.CANCELLED}),
    },
    RunStatus.QUEUED: {
        "RunStarted": frozenset({RunStatus.RUNNING}),
        "PauseRequested": frozenset({RunStatus.PAUSED}),
        "CancelRequested": frozenset({RunStatus.CANCELLED}),
        **_LEAVING_A_WORKER,
    },
    RunStatus.RUNNING: _LEAVING_A_WORKER,
    **dict.fromkeys(sorted(SUSPENDED), _WAKING),
    RunStatus.PAUSED: {
        "ResumeRequested": frozenset({RunStatus.QUEUED, RunStatus.SCHEDULED}),
        "CancelRequested": frozenset({RunStatus.QUEUED, RunStatus.CANCELLED}),
    },
    RunStatus.COMPLETED: {},
    RunStatus.FAILED: {"RetryRequested": frozenset({RunStatus.QUEUED})},
    RunStatus.CANCELLED: {"RetryRequested": frozenset({RunStatus.QUEUED})},
    RunStatus.DEAD_LETTERED: {"RetryRequested": frozenset({RunStatus.QUEUED})},
}
"""Status → type of event → the statuses that it may lead to. ``None`` is a run that is not there yet."""
