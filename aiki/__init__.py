"""Aiki: durable workflows in plain async Python, on RabbitMQ and MongoDB.

Everything that applications and workflows need is here; what is not here may change without notice.
Nothing is imported before it is asked for, so that ``aiki --help`` and a client stay quick to start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiki.bootstrap import Client, embedded
    from aiki.engine.retry import RetryAfter, RetryPolicy, exponential, fixed, never
    from aiki.engine.status import RunStatus
    from aiki.errors import (
        AcceptanceTimeoutError,
        AikiError,
        BrokerError,
        BrokerUnavailableError,
        ChildFailedError,
        CompletionTimeoutError,
        ConfigurationError,
        EnqueueTimeoutError,
        IdempotencyConflictError,
        InvalidArgumentsError,
        InvalidNameError,
        InvalidOptionError,
        NonDeterminismError,
        PayloadError,
        PayloadTooLargeError,
        QueryTimeoutError,
        RunCancelledError,
        RunDeadLetteredError,
        RunEndedError,
        RunFailedError,
        RunNotFoundError,
        RunTimeoutError,
        StoreUnavailableError,
        TaskFailedError,
        TaskTimeoutError,
        WorkflowIOError,
        WorkflowStuckError,
    )
    from aiki.sdk.context import TaskContext
    from aiki.sdk.handle import Handle
    from aiki.sdk.run import Run
    from aiki.sdk.task import Task, task
    from aiki.sdk.workflow import Workflow, workflow
    from aiki.worker.service import Worker

__all__ = [
    "AcceptanceTimeoutError",
    "AikiError",
    "BrokerError",
    "BrokerUnavailableError",
    "ChildFailedError",
    "Client",
    "CompletionTimeoutError",
    "ConfigurationError",
    "EnqueueTimeoutError",
    "Handle",
    "IdempotencyConflictError",
    "InvalidArgumentsError",
    "InvalidNameError",
    "InvalidOptionError",
    "NonDeterminismError",
    "PayloadError",
    "PayloadTooLargeError",
    "QueryTimeoutError",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "RunCancelledError",
    "RunDeadLetteredError",
    "RunEndedError",
    "RunFailedError",
    "RunNotFoundError",
    "RunStatus",
    "RunTimeoutError",
    "StoreUnavailableError",
    "Task",
    "TaskContext",
    "TaskFailedError",
    "TaskTimeoutError",
    "Worker",
    "Workflow",
    "WorkflowIOError",
    "WorkflowStuckError",
    "embedded",
    "exponential",
    "fixed",
    "never",
    "task",
    "workflow",
]

_HOMES = {
    "aiki.bootstrap": ("Client", "embedded"),
    "aiki.engine.retry": ("RetryAfter", "RetryPolicy", "exponential", "fixed", "never"),
    "aiki.engine.status": ("RunStatus",),
    "aiki.sdk.context": ("TaskContext",),
    "aiki.sdk.handle": ("Handle",),
    "aiki.sdk.run": ("Run",),
    "aiki.sdk.task": ("Task", "task"),
    "aiki.sdk.workflow": ("Workflow", "workflow"),
    "aiki.worker.service": ("Worker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'aiki' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "aiki.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
