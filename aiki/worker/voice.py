"""The voice of a dispatch: everything that it says carries its pair (fencing)."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from aiki.engine.commands import ExecuteRun
from aiki.engine.events import CancelRequested, RunRequested, TaskScheduled, WorkerEvent
from aiki.engine.ids import child_run_id, idempotency_key_of
from aiki.engine.journal import JournalEntry
from aiki.engine.payload import digest
from aiki.engine.state import Parent
from aiki.worker.host import Host
from aiki.worker.operations import ChildOperation, TaskOperation, moment_after

__all__ = ["Voice"]

E = TypeVar("E", bound=WorkerEvent)


class Voice:
    """Speaks for one dispatch."""

    def __init__(self, command: ExecuteRun, host: Host) -> None:
        self._command = command
        self._host = host

    def says(self, event: Callable[..., E], at: datetime, **facts: Any) -> E:
        """Write an event of this dispatch."""
        return event(
            id=self._host.new_id(),
            run_id=self._command.run_id,
            at=at,
            incarnation=self._command.incarnation,
            pair=self._command.pair,
            worker=self._host.worker,
            **facts,
        )

    def schedules(
        self, at: datetime, operation: TaskOperation, entry: JournalEntry | None, *, task_id: str
    ) -> TaskScheduled:
        """Ask for a task to be executed by the workers of its queue; without *entry*, once more."""
        return self.says(
            TaskScheduled,
            at,
            entry=entry,
            task_id=task_id,
            queue=operation.task.options.queue,
            task=operation.task.name,
            operation=operation.id,
            attempt=operation.failed_attempts + 1,
            input=operation.arguments,
            idempotency_key=idempotency_key_of(self._command.run_id, self._command.incarnation, operation.id),
            timeout=operation.task.options.timeout,
            trace=self._command.trace,
        )

    def requests_child(self, at: datetime, operation: ChildOperation) -> RunRequested:
        """Ask for a child run. Asked for again, it is the same run."""
        assert operation.child_id is not None
        command, workflow, options = self._command, operation.workflow, operation.workflow.options
        return RunRequested(
            id=f"child:{operation.child_id}",
            run_id=operation.child_id,
            at=at,
            # The same again however often it is asked for, and as hard to guess as the parent's own.
            incarnation=child_run_id(operation.child_id, command.incarnation, "incarnation", 1),
            workflow=workflow.name,
            version=workflow.version,
            queue=workflow.queue,
            input=operation.arguments,
            input_hash=digest(operation.arguments),
            start_at=None if not options.delay else moment_after(at, options.delay),
            timeout_at=None if options.timeout is None else moment_after(at, options.timeout),
            recoveries_max=options.recoveries_max,
            priority=options.priority,
            tags=options.tags,
            retention=options.retention,
            parent=Parent(run_id=command.run_id, incarnation=command.incarnation, operation=operation.id),
            trace=command.trace,
        )

    def cancels_child(self, at: datetime, child_id: str) -> CancelRequested:
        """Ask for a child run to stop. Asked for again, it counts once."""
        return CancelRequested(id=f"cancelled-by-parent:{child_id}", run_id=child_id, at=at)
