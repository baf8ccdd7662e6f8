"""Replay: drive the code of a workflow along its journal. No I/O, no clock, no chance.

The procedure is the same for what is recorded and for what happens now (rule 12):
run the workflow until it is quiescent, resolve the next entry that it waits for, in
order of ``seq``, and again. Logical time is the stamp of the entry last resolved.
"""

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import EntryKind, JournalEntry, Wait
from aiki.engine.payload import Payload, digest
from aiki.errors import NonDeterminismError, WorkflowStuckError
from aiki.observability.logs import get_logger
from aiki.sdk.calls import INSIDE_WORKFLOW, Caller, caller_outside
from aiki.sdk.run import Run, RunDriver
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow
from aiki.worker import isolation
from aiki.worker.history import History
from aiki.worker.loop import Timekeeper, WorkflowLoop
from aiki.worker.operations import (
    ChildOperation,
    Operation,
    SignalOperation,
    StatusOperation,
    TaskOperation,
    TimerOperation,
    Waiting,
    moment_after,
)

__all__ = ["End", "Replay"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """How a workflow ended: with a result, or with an exception."""

    result: Payload | None = None
    error: BaseException | None = None
    cancelled: bool = False
    """It ended because the run was cancelled."""


class Replay(RunDriver, Timekeeper):
    """One run of one workflow on its private loop, and what it waits for."""

    def __init__(
        self, command: ExecuteRun, workflow: Workflow[..., Any], history: History, *, began_at: datetime
    ) -> None:
        self.history = history
        self.pending: dict[str, Operation] = {}
        """What was asked for and is not over, in the order of asking."""
        self.new: list[Operation] = []
        """What was asked for and has to be started, until somebody takes it."""
        self.dropped: list[Operation] = []
        """What was cancelled by the workflow, until somebody takes it."""
        self.is_live = False
        """Whether the recorded past is over: deadlines are due from now on, what is new may start."""
        self._waits: Mapping[str, Wait] = {wait.operation: wait for wait in command.waits}
        self._recorded_seq = history.last_seq
        self._is_replaying = history.last_seq > 0 or bool(command.waits)
        self._began_at = began_at
        self._now = began_at
        self._counts: dict[str, int] = {}
        self._timers: dict[int, TimerOperation] = {}
        self._workflow = workflow
        self._cancelled = False
        self._stuck: WorkflowStuckError | None = None
        self.loop = WorkflowLoop(self)  # type: ignore[abstract]  # the rest refuses to work, by design
        run = Run(
            self,
            run_id=command.run_id,
            workflow=command.workflow,
            version=command.version,
            arguments=command.input,
            seed=f"{command.run_id}:{command.incarnation}",
            tags=command.tags,
        )
        context = copy_context()
        context.run(INSIDE_WORKFLOW.set, True)
        self._main = self.loop.create_task(self._execute(workflow, run, command.input), context=context)

    async def _execute(self, workflow: Workflow[..., Any], run: Run, arguments: Payload) -> Payload:
        result = await workflow.start(run, arguments)
        return workflow.signature.dump_result(result)

    # -- driving ---------------------------------------------------------------------------------

    def drive(self, *, go_on: Callable[[], bool]) -> bool:
        """Run until nothing is left to resolve, or *go_on* says to stop for now; tells whether nothing is left."""
        if self._stuck is not None or (self.loop.is_quiescent and not self.history.has_next):
            return True
        try:
            with self.loop.running():
                while self._step():
                    if not go_on():
                        return False
        except WorkflowStuckError as error:
            self._stuck = error
        return True

    def _step(self) -> bool:
        """Run until quiescent, then resolve the next entry; tells whether there was one."""
        self.loop.run_until_quiescent()
        if self._main.done():
            return False
        entry = self.history.next()
        if entry is None:
            self._is_replaying = False
            return False
        self._resolve(entry)
        return True

    def _resolve(self, entry: JournalEntry) -> None:
        self._now = max(self._now, entry.at)
        if entry.seq >= self._recorded_seq and not self._waits:
            # Where the run was not suspended after this entry, nothing tells that the code behind it has run before.
            self._is_replaying = False
        if entry.kind is EntryKind.CANCEL_REQUESTED:
            self._cancelled = True
            self._main.cancel()
        elif entry.operation is not None:
            operation = self.pending.pop(entry.operation, None)
            if operation is not None:
                operation.resolve(entry)

    @property
    def end(self) -> End | None:
        """How the workflow ended, if it did. One that does not come to rest has ended with that error."""
        if self._stuck is not None:
            return End(error=self._stuck)
        if not self._main.done():
            return None
        if self._main.cancelled():
            return End(error=asyncio.CancelledError(), cancelled=self._cancelled)
        error = self._main.exception()
        return End(result=self._main.result()) if error is None else End(error=error)

    def check(self) -> NonDeterminismError | None:
        """Hold the code against the record, once nothing recorded can be consumed any more.

        Left over entries are passed by where the run is known to have come further, and nothing is
        asked for in their place. Otherwise the code has changed before them, and does not fit.
        """
        if any(operation in self._waits for operation in self.pending):
            self.history.pass_by(self._recorded_seq)
        left_over = self.history.left_over()
        if not left_over:
            return None
        new = [each for each in self.pending.values() if each.is_new and each.id not in self._waits]
        high = self.history.high
        first = min((each.asked_at for each in new if each.starts_something), default=high)
        wrong = [entry for entry in left_over if entry.seq > min(first, high)]
        if not wrong:
            return None
        return NonDeterminismError(
            recorded=[f"#{e.seq} {e.kind} {e.operation} ({e.where or 'unknown line'})" for e in wrong],
            asked=[f"{each.id} ({each.caller.where})" for each in new],
        )

    def go_live(self, now: datetime | None) -> None:
        """End the recorded past. Deadlines that are not recorded count from *now*, if given.

        Without that, everything with a deadline would be overdue after an outage (rule 13).
        """
        self.is_live = True
        if now is None:
            return
        for operation in self.pending.values():
            if isinstance(operation, TimerOperation) and not operation.is_fixed:
                operation.due_at = moment_after(now, operation.delay)

    def discard(self) -> None:
        """Throw the workflow away, unnoticed by its code."""
        self.loop.discard()
        for operation in self.pending.values():
            if (future := operation.take_future()) is not None:
                future.let_go()
        self.pending.clear()

    # -- what the workflow asks for --------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """Whether what the workflow does now, it has done before."""
        return self._is_replaying

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be logged: replaying, or discarded."""
        return self._is_replaying or self.loop.is_discarded

    def now(self) -> datetime:
        """Tell the logical time."""
        return self._now

    def outside(self) -> AbstractContextManager[None]:
        """Lift the ban on I/O, for code of ours."""
        return isolation.outside()

    def call_task(self, task: Task[..., Any], arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        """Ask for the result of a task."""
        name = self._name(f"task:{task.name}:{digest(arguments)}")
        return self._ask(TaskOperation(name, caller, self.history.high, task, arguments))

    def call_child(self, workflow: Workflow[..., Any], arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        """Ask for the result of a child run."""
        name = self._name(f"child:{workflow.name}:{digest(arguments)}")
        return self._ask(ChildOperation(name, caller, self.history.high, workflow, arguments))

    def wait_for_signal(self, name: str, caller: Caller) -> Awaitable[Payload]:
        """Ask for the next signal of that name."""
        return self._ask(SignalOperation(self._name(f"signal:{name}"), caller, self.history.high, name))

    def sleep(self, delay: float, caller: Caller) -> Awaitable[None]:
        """Ask for a moment to come."""
        if delay <= 0:
            return asyncio.sleep(0)
        return self._ask(self._timer(delay, caller, None))

    def set_status(self, note: Payload, caller: Caller) -> None:
        """Ask for something to be recorded."""
        if not self.loop.is_discarded:
            self._admit(StatusOperation(self._name("status"), caller, self.history.high, note))

    def _name(self, address: str) -> str:
        number = self._counts[address] = self._counts.get(address, 0) + 1
        return f"{address}#{number}"

    def _ask(self, operation: Operation) -> Awaitable[Any]:
        if self.loop.is_discarded:
            raise GeneratorExit  # Passes through `except Exception`: the coroutine is being closed.
        self._admit(operation)
        future = operation.future = Waiting(self.loop, operation, self._on_cancel)
        return future

    def _admit(self, operation: Operation) -> None:
        recorded = self.history.ask(operation.id)
        for entry in recorded:
            operation.note(entry)
        operation.is_new = not (recorded or self.history.knows(operation.id))
        if isinstance(operation, StatusOperation) and recorded:
            return
        self.pending[operation.id] = operation
        if not recorded and operation.id not in self._waits:
            self.new.append(operation)

    def _on_cancel(self, operation: Operation) -> None:
        self.pending.pop(operation.id, None)
        if not self.loop.is_discarded:
            self.dropped.append(operation)

    # -- timers ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Tell the logical time, in seconds since the run began."""
        return (self._now - self._began_at).total_seconds()

    def timer_set(self, handle: TimerHandle, delay: float) -> None:
        """A callback is wanted after *delay* seconds."""
        # The caller of the loop's call_later: asyncio.sleep, asyncio.timeout, or the workflow itself.
        operation = self._timer(delay, caller_outside(2), handle)
        self._timers[id(handle)] = operation
        self._admit(operation)

    def _timer(self, delay: float, caller: Caller, handle: TimerHandle | None) -> TimerOperation:
        name = self._name(f"timer:{self._owner_of_timer(caller.function)}")
        operation = TimerOperation(
            name, caller, self.history.high, delay, handle=handle, fire=self._fire if handle is not None else None
        )
        recorded = self._waits.get(name)
        if recorded is not None and recorded.due_at is not None:
            operation.due_at, operation.is_fixed = recorded.due_at, True
        else:
            operation.due_at = moment_after(self._now, delay)
        return operation

    def _owner_of_timer(self, function: str) -> str:
        # What is written inside the workflow function goes by the workflow's name, so that the function can be renamed.
        inside = function.removeprefix(self._workflow.__qualname__)
        return f"{self._workflow.name}{inside}" if not inside or inside.startswith(".<locals>.") else function

    def _fire(self, handle: TimerHandle) -> None:
        self._timers.pop(id(handle), None)
        self.loop.fire(handle)

    def timer_cancelled(self, handle: TimerHandle) -> None:
        """A callback is not wanted any more."""
        operation = self._timers.pop(id(handle), None)
        if operation is not None:
            operation.is_over = True
            self._on_cancel(operation)

    def went_wrong(self, context: dict[str, Any]) -> None:
        """Log an exception that the workflow never looked at."""
        if self.is_silent:
            return
        with self.outside():
            log.warning("workflow.exception_ignored", reason=context.get("message"), exc_info=context.get("exception"))
