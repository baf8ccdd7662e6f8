"""Operations: what a workflow has asked for and not got yet."""

from asyncio.events import TimerHandle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

from aiki.engine.journal import EntryKind, JournalEntry, Wait, WaitKind
from aiki.engine.payload import Payload
from aiki.errors import ChildFailedError, TaskFailedError
from aiki.sdk.calls import Caller
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow
from aiki.worker.loop import WorkflowFuture, WorkflowLoop

__all__ = [
    "ChildOperation",
    "Operation",
    "SignalOperation",
    "StatusOperation",
    "TaskOperation",
    "TimerOperation",
    "Waiting",
    "moment_after",
]

_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


def moment_after(start: datetime, delay: float) -> datetime:
    """Add seconds to a time, rounded up to milliseconds: a timer never fires early."""
    try:
        # What floating point adds below a microsecond is no reason to wait for another millisecond.
        return min(start + timedelta(milliseconds=ceil(delay * 1000 - 0.001)), _END_OF_TIME)
    except (OverflowError, ValueError):
        return _END_OF_TIME


class Operation:
    """One thing that a workflow asked for: ``address#n``, and where."""

    __slots__ = ("asked_at", "busy", "caller", "future", "id", "is_new", "is_over")

    starts_something = True
    """Whether it does something new, against which recorded entries have to be held."""

    def __init__(self, operation: str, caller: Caller, asked_at: int) -> None:
        self.id = operation
        self.caller = caller
        self.asked_at = asked_at
        """The highest ``seq`` that was consumed when it was asked for."""
        self.is_new = False
        """Whether nothing is recorded of it."""
        self.is_over = False
        """Whether it has its outcome, or nobody wants it any more."""
        self.busy = False
        """Whether something is under way for it: an attempt, or an entry that is not confirmed yet."""
        self.future: Waiting | None = None

    def note(self, entry: JournalEntry) -> None:
        """Learn something that is recorded and does not end the operation."""

    def resolve(self, entry: JournalEntry) -> None:
        """End the operation with what is recorded."""
        if (future := self.take_future()) is not None:
            future.set_result(entry.payload)

    def take_future(self) -> "Waiting | None":
        """End the operation: give what somebody awaits, if it is open, and know it no longer."""
        self.is_over = True
        future, self.future = self.future, None
        return None if future is None or future.done() else future

    def wait(self) -> Wait | None:
        """Tell what a suspended run has to wait for, or ``None`` where this could go on at once."""
        return None

    @property
    def due(self) -> datetime | None:
        """When it goes on by itself."""
        return None


class Waiting(WorkflowFuture[Any]):
    """What the workflow awaits. When that is cancelled, so is the operation."""

    __slots__ = ("_on_cancel", "_operation")

    def __init__(self, loop: WorkflowLoop, operation: Operation, on_cancel: Callable[[Operation], None]) -> None:
        super().__init__(loop)
        self._operation = operation
        self._on_cancel = on_cancel

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, and tell."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._operation.take_future()
            self._on_cancel(self._operation)
        return cancelled

    def let_go(self) -> None:
        """Forget who waits and who would hear of it: the loop was discarded, and neither is there any more."""
        self._on_cancel = _nobody
        super().cancel()


def _nobody(_operation: Operation) -> None:
    """Hear nothing."""


class TaskOperation(Operation):
    """A task: executed here, or by the workers of another queue."""

    __slots__ = ("arguments", "delay_ms", "due_at", "failed_attempts", "task", "task_id")

    def __init__(self, operation: str, caller: Caller, asked_at: int, task: Task[..., Any], arguments: Payload) -> None:
        super().__init__(operation, caller, asked_at)
        self.task = task
        self.arguments = arguments
        self.failed_attempts = 0
        self.due_at: datetime | None = None
        """When the next attempt may start."""
        self.delay_ms: int | None = None
        self.task_id: str | None = None
        """The attempt that another worker has been sent."""

    def note(self, entry: JournalEntry) -> None:
        """Learn of an attempt that failed, or was sent away."""
        if entry.kind is EntryKind.TASK_SCHEDULED:
            self.task_id = entry.source
            self.due_at = None
        else:
            self.task_id = None
            self.failed_attempts += 1
            self.due_at = entry.due_at
            self.delay_ms = (
                None if entry.due_at is None else round((entry.due_at - entry.at) / timedelta(milliseconds=1))
            )

    def resolve(self, entry: JournalEntry) -> None:
        """Give the result, or raise in the workflow."""
        if entry.kind is EntryKind.TASK_COMPLETED:
            super().resolve(entry)
            return
        if (future := self.take_future()) is not None:
            assert entry.failure is not None
            error = TaskFailedError(
                self.task.name, attempts=entry.attempt or 1, failure=entry.failure, operation=self.id
            )
            future.set_exception(error)

    def wait(self) -> Wait | None:
        """Wait for the other worker, or for the next attempt."""
        if self.task_id is not None:
            return Wait(kind=WaitKind.TASK, operation=self.id, name=self.task_id)
        if self.due_at is not None:
            return Wait(kind=WaitKind.RETRY, operation=self.id, due_at=self.due_at, delay_ms=self.delay_ms)
        return None

    @property
    def due(self) -> datetime | None:
        """When the next attempt may start."""
        return None if self.task_id is not None else self.due_at


class ChildOperation(Operation):
    """A run that this run has started."""

    __slots__ = ("arguments", "child_id", "workflow")

    def __init__(
        self, operation: str, caller: Caller, asked_at: int, workflow: Workflow[..., Any], arguments: Payload
    ) -> None:
        super().__init__(operation, caller, asked_at)
        self.workflow = workflow
        self.arguments = arguments
        self.child_id: str | None = None

    def note(self, entry: JournalEntry) -> None:
        """Learn that the child was started."""
        self.child_id = entry.source

    def resolve(self, entry: JournalEntry) -> None:
        """Give the result, or raise in the workflow."""
        if entry.kind is EntryKind.CHILD_COMPLETED:
            super().resolve(entry)
            return
        if (future := self.take_future()) is not None:
            assert entry.failure is not None
            error = ChildFailedError(self.workflow.name, self.child_id or "", failure=entry.failure, operation=self.id)
            future.set_exception(error)

    def wait(self) -> Wait | None:
        """Wait for the child to end."""
        if self.child_id is None:
            return None
        return Wait(kind=WaitKind.CHILD, operation=self.id, name=self.child_id)


class SignalOperation(Operation):
    """The next signal of a name."""

    __slots__ = ("name",)

    def __init__(self, operation: str, caller: Caller, asked_at: int, name: str) -> None:
        super().__init__(operation, caller, asked_at)
        self.name = name

    def wait(self) -> Wait:
        """Wait for the signal."""
        return Wait(kind=WaitKind.SIGNAL, operation=self.id, name=self.name)


class StatusOperation(Operation):
    """What the workflow says of itself. Nobody waits for it."""

    __slots__ = ("text",)

    starts_something = False

    def __init__(self, operation: str, caller: Caller, asked_at: int, payload: Payload) -> None:
        super().__init__(operation, caller, asked_at)
        self.text = payload


class TimerOperation(Operation):
    """A moment to come. It has passed when that is recorded, and not before."""

    __slots__ = ("_fire", "delay", "due_at", "handle", "is_fixed")

    starts_something = False

    def __init__(
        self,
        operation: str,
        caller: Caller,
        asked_at: int,
        delay: float,
        *,
        handle: TimerHandle | None = None,
        fire: Callable[[TimerHandle], None] | None = None,
    ) -> None:
        super().__init__(operation, caller, asked_at)
        self.delay = delay
        self.due_at = _END_OF_TIME
        self.is_fixed = False
        """Whether the deadline stays, whatever the code says later: from when the timer is started."""
        self.handle = handle
        self._fire = fire

    def resolve(self, entry: JournalEntry) -> None:
        """Let the timer fire."""
        if self.handle is None:
            super().resolve(entry)
            return
        self.is_over = True
        assert self._fire is not None
        self._fire(self.handle)

    def wait(self) -> Wait | None:
        """Wait for the deadline, once that is fixed."""
        if not self.is_fixed:
            return None
        return Wait(kind=WaitKind.TIMER, operation=self.id, due_at=self.due_at)

    @property
    def due(self) -> datetime:
        """The deadline."""
        return self.due_at
