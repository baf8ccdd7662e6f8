"""The machine: what callbacks of the worker's event loop push on, to move one run forward.

Something was confirmed, an attempt ended, a moment came, a notice arrived. Each push
replays what is recorded until nothing moves, starts what is new, and records what was
learnt, in this order and in no other (rules 12 and 13). While a record is on its way the
workflow has seen it already, and nothing that it asks for begins before the record is
confirmed (docs/decisions/0103). The workflow itself is driven from these plain callbacks, on
its own loop, and never from inside a task.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerNotice
from aiki.engine.events import Event, RunCompleted, RunFailed, RunSuspended
from aiki.engine.ids import child_run_id, task_id_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.errors import RunAbandonedError, WorkflowStuckError
from aiki.sdk.workflow import Workflow
from aiki.worker.alarms import Alarms, Bell
from aiki.worker.arrivals import Arrivals
from aiki.worker.attempts import Attempted
from aiki.worker.facts import Fact, attempt_ended, item_arrived
from aiki.worker.failures import failed_operations, failure_of
from aiki.worker.history import MARKS, History
from aiki.worker.host import Host
from aiki.worker.operations import (
    ChildOperation,
    Operation,
    SignalOperation,
    StatusOperation,
    TaskOperation,
    TimerOperation,
    moment_after,
)
from aiki.worker.recorder import Batch, Recorder
from aiki.worker.replay import End, Replay
from aiki.worker.voice import Voice
from aiki.worker.workbench import Workbench

__all__ = ["Machine"]

# A long journal is replayed in slices of this many seconds, so that heartbeats and other runs get their turn.
SLICE_SECONDS = 0.01


class Machine:
    """Pushes one dispatch of a run on, until it is over or given back."""

    def __init__(
        self,
        command: ExecuteRun,
        workflow: Workflow[..., Any],
        host: Host,
        entries: Sequence[JournalEntry],
        recorder: Recorder,
        voice: Voice,
        began_at: datetime,
    ) -> None:
        self._command = command
        self._host = host
        self._voice = voice
        self._recorder = recorder
        self._history = History(entries)
        self._replay = Replay(command, workflow, self._history, began_at=began_at)
        self._arrivals = Arrivals(self._history.sources)
        self._arrivals.put(command.inbox)
        self._cancellations = set(self._history.sources)
        self._cancellations_asked = self._history.cancellations
        self._alarms = Alarms()
        self._due: list[Operation] = []
        self._bell = Bell(host.clock, self._push)
        # The worker's clock may be behind the orchestrator's: a timer that the one found due must not be early here.
        self._clock_offset = max(timedelta(), command.now - host.clock.now())
        self._workbench = Workbench(
            command, host, on_end=self._on_attempted, on_change=self._push, on_trouble=self._conclude
        )
        self._grace = Bell(host.clock, self._workbench.cut_off)
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._publishing: asyncio.Future[None] | None = None
        # An earlier holder was lost, perhaps to this run. Even its plain code may end the process at once: none of it
        # runs before it is known who has it now, or losing this worker would not count (rule 4).
        self._may_begin = not (command.recovered or command.alone)
        self._is_scheduled = False
        self._is_checked = False
        self._is_handing_back = False
        self._is_ending = False

    async def run(
        self, started: "asyncio.Future[None]", *, notices: Sequence[NotifyWorker], grace: float | None
    ) -> None:
        """Run until the run was given back or ended, and that is confirmed."""
        started.add_done_callback(partial(self._guarded, self._on_started))
        try:
            for notice in notices:
                self.notify(notice)
            if grace is not None:
                self.hand_back(grace)
            self._push()
            await self._over
        finally:
            await self._clean_up()

    def notify(self, notice: NotifyWorker) -> None:
        """Take what an orchestrator has to say."""
        if notice.notice is WorkerNotice.PAUSE:
            self._is_handing_back = True
        elif notice.notice is WorkerNotice.CANCEL:
            self._learn_cancellation(notice.source or "")
        self._arrivals.put(notice.items)
        self._push()

    def hand_back(self, grace: float) -> None:
        """Start nothing new; what is under way may end within *grace* seconds."""
        self._is_handing_back = True
        self._grace.set(moment_after(self._now(), grace), grace)
        self._push()

    def abandon(self) -> None:
        """Stop at once, and say nothing more."""
        self._is_ending = True
        self._loop.call_soon(self._conclude, RunAbandonedError(self._command.run_id))

    def _conclude(self, error: BaseException | None) -> None:
        self._is_ending = True
        self._replay.discard()
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

    async def _clean_up(self) -> None:
        self._is_ending = True
        self._replay.discard()
        # Taken apart by hand: the garbage collector would need a fifth of what a short run takes here.
        self._bell.take_down()
        self._grace.take_down()
        if self._publishing is not None:
            self._publishing.cancel()
        await self._workbench.close()

    # -- the machine -----------------------------------------------------------------------------

    def _now(self) -> datetime:
        return self._host.clock.now() + self._clock_offset

    def _push(self) -> None:
        """Have the machine move once more, soon."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._guarded, self._move_as_pushed)

    def _guarded(self, step: Callable[..., None], *args: Any) -> None:
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001 - a defect of ours ends the execution, which raises it
            self._conclude(error)

    def _move_as_pushed(self) -> None:
        self._is_scheduled = False
        self._move()

    def _move(self) -> None:
        if self._is_ending or not self._may_begin or self._publishing is not None:
            return
        replay = self._replay
        if not self._drive():
            self._push()
            return
        self._let_go_of_what_was_cancelled()
        end = replay.end
        if end is None and not self._is_checked:
            end = self._compare_code_and_record()
        if end is not None:
            self._end_with(end)
            return
        if replay.is_live:
            self._learn_what_is_due()
            self._start_what_is_new()
        self._learn_what_arrived()
        self._record()
        self._rest()

    def _drive(self) -> bool:
        """Replay what is recorded, for a while; tells whether nothing is left to replay."""
        clock = self._host.clock
        until = clock.monotonic() + SLICE_SECONDS
        return self._replay.drive(go_on=lambda: clock.monotonic() < until)

    def _compare_code_and_record(self) -> End | None:
        """Check, once, at the end of what is recorded, that the code fits it; take up what is under way."""
        self._is_checked = True
        error = self._replay.check()
        if error is not None:
            return End(error=error)
        new = set(map(id, self._replay.new))
        for operation in list(self._replay.pending.values()):
            if id(operation) not in new:
                self._take_up(operation)
        if self._command.cancel_requested is not None:
            self._learn_cancellation(self._command.cancel_requested)
        self._learn_what_is_due(woken=self._command.woken)
        self._learn_what_arrived()
        self._leave_the_past()
        return None

    def _leave_the_past(self) -> None:
        """Let time go on from now: with the next entry, or with one that only says what time it is (rule 13)."""
        resumed = self._command.base_seq > 0 or bool(self._command.waits)
        if self._recorder.has_facts:
            return
        if resumed and self._replay.new and not self._is_handing_back:
            self._recorder.learn(Fact(kind=EntryKind.CLOCK, at=self._now()))
        else:
            self._replay.go_live(None)

    # -- learning --------------------------------------------------------------------------------

    def _learn_cancellation(self, source: str) -> None:
        if source in self._cancellations:
            return
        self._cancellations.add(source)
        self._cancellations_asked += 1
        label = _cancellation(self._cancellations_asked)
        self._recorder.learn(Fact(kind=EntryKind.CANCEL_REQUESTED, at=self._now(), label=label, source=source))

    def _learn_what_is_due(self, *, woken: bool = False) -> None:
        if self._alarms.nearest is None:
            return
        now = self._now()
        due = self._alarms.take_due(now)
        nearest = self._alarms.take_nearest() if woken and not due else None
        for operation in (*due, *([nearest] if nearest is not None else ())):
            if isinstance(operation, TimerOperation):
                operation.busy = True
                self._recorder.learn(Fact(kind=EntryKind.TIMER_FIRED, at=now, operation=operation))
            else:
                self._due.append(operation)

    def _learn_what_arrived(self) -> None:
        for operation, item in self._arrivals.take():
            operation.busy = True
            self._recorder.learn(item_arrived(operation, item, self._now()))

    def _let_go_of_what_was_cancelled(self) -> None:
        dropped, self._replay.dropped = self._replay.dropped, []
        for operation in dropped:
            self._workbench.cancel(operation)
            if isinstance(operation, ChildOperation) and operation.child_id is not None:
                self._recorder.announce(self._voice.cancels_child(self._now(), operation.child_id))

    # -- recording -------------------------------------------------------------------------------

    def _record(self) -> None:
        while self._publishing is None and self._recorder.has_something:
            batch = self._recorder.take_batch(self._now())
            for fact in self._recorder.take_dropped():
                if fact.item is not None:
                    self._arrivals.put_back(fact.item)
            self._learn_what_arrived()
            if batch.events:
                self._resolve(batch)

    def _resolve(self, batch: Batch) -> None:
        """Let the workflow see what goes on record. If that ends it, the end goes out together with the record.

        Not if somebody else is told of it, and not before it is confirmed: a child that starts, or what the workflow
        let go of.
        """
        if batch.entries and not self._replay.is_live:
            self._replay.go_live(batch.entries[0].at)
        self._history.append(batch.entries)
        is_resolved = self._drive()
        tells = bool(self._replay.dropped) or any(entry.kind is EntryKind.CHILD_STARTED for entry in batch.entries)
        if is_resolved and not tells and (end := self._replay.end) is not None:
            self._end_with(end, batch.events)
        else:
            self._publish(batch.events, partial(self._on_confirmed, batch))

    def _publish(self, events: Sequence[Event], then: Callable[[], None]) -> None:
        self._publishing = asyncio.ensure_future(self._host.publish(events))
        self._publishing.add_done_callback(partial(self._guarded, self._on_published, then))

    def _on_published(self, then: Callable[[], None], published: "asyncio.Future[None]") -> None:
        self._publishing = None
        if published.cancelled():
            self._conclude(RunAbandonedError(self._command.run_id))
        elif (error := published.exception()) is not None:
            self._conclude(error)
        else:
            then()

    def _on_started(self, started: "asyncio.Future[None]") -> None:
        if started.cancelled():
            return
        error = started.exception()
        if error is not None:
            self._conclude(error)
            return
        if not self._may_begin:
            self._may_begin = True
            self._push()

    def _on_confirmed(self, batch: Batch) -> None:
        if self._is_ending:
            return
        for fact, entry in zip(batch.facts, batch.entries, strict=True):
            self._follow_up(fact, entry)
        self._move()

    def _follow_up(self, fact: Fact, entry: JournalEntry) -> None:
        """Do what had to wait until an entry was confirmed."""
        operation = fact.operation
        if operation is None:
            return
        operation.busy = False
        if entry.kind in MARKS:
            operation.note(entry)
            if not operation.is_over:
                self._take_up(operation)

    def _take_up(self, operation: Operation) -> None:
        """See to it that whatever *operation* is known to wait for is noticed."""
        match operation:
            case TaskOperation(task_id=str(task_id)):
                self._arrivals.wait(operation)
                if self._command.recovered and not self._replay.is_live:
                    # The order for it may have been lost with the earlier holder's orchestrator.
                    again = self._voice.schedules(self._now(), operation, None, task_id=task_id)
                    self._recorder.announce(again)
            case ChildOperation(child_id=str()):
                self._arrivals.wait(operation)
                self._recorder.announce(self._voice.requests_child(self._now(), operation))
            case SignalOperation():
                self._arrivals.wait(operation)
            case TaskOperation() | TimerOperation(is_fixed=True):
                self._alarms.set(operation)
            case _:
                pass  # A deadline that is not recorded is settled when the recorded past is over.

    # -- starting --------------------------------------------------------------------------------

    def _start_what_is_new(self) -> None:
        if self._is_handing_back:
            return
        new, self._replay.new = self._replay.new, []
        due, self._due = self._due, []
        for operation in (*new, *due):
            if not (operation.is_over or operation.busy):
                _STARTS[type(operation)](self, operation)

    def _start_task(self, operation: TaskOperation) -> None:
        operation.busy = True
        queue = operation.task.options.queue
        if queue is None:
            self._workbench.start(operation)
        else:
            self._launch(operation, EntryKind.TASK_SCHEDULED, queue, task_id_of)

    def _start_child(self, operation: ChildOperation) -> None:
        operation.busy = True
        self._launch(operation, EntryKind.CHILD_STARTED, operation.workflow.queue, child_run_id)

    def _launch(
        self, operation: Operation, kind: EntryKind, queue: str, id_of: Callable[[str, str, str, int], str]
    ) -> None:
        command, launch = self._command, self._history.launches(operation.id) + 1
        self._recorder.learn(
            Fact(
                kind=kind,
                at=self._now(),
                operation=operation,
                attempt=operation.failed_attempts + 1 if isinstance(operation, TaskOperation) else launch,
                source=id_of(command.run_id, command.incarnation, operation.id, launch),
                name=queue,
            )
        )

    def _start_status(self, operation: StatusOperation) -> None:
        del self._replay.pending[operation.id]
        self._recorder.learn(
            Fact(kind=EntryKind.STATUS_SET, at=self._now(), operation=operation, payload=operation.text)
        )

    def _start_timer(self, operation: TimerOperation) -> None:
        # From here on its deadline stays: it is recorded whenever the run is suspended.
        operation.is_fixed = True
        self._alarms.set(operation)

    def _start_signal(self, operation: SignalOperation) -> None:
        self._arrivals.wait(operation)

    def _on_attempted(self, operation: TaskOperation, attempted: Attempted) -> None:
        if operation.is_over or self._is_ending:
            return
        if offset := self._clock_offset:
            attempted = replace(
                attempted, started_at=attempted.started_at + offset, ended_at=attempted.ended_at + offset
            )
        self._guarded(lambda: self._recorder.learn(attempt_ended(operation, attempted)))

    # -- rest and end ----------------------------------------------------------------------------

    def _rest(self) -> None:
        """Wait for the next moment, here or suspended, unless something is under way."""
        nearest = self._alarms.nearest
        left = float("inf") if nearest is None else (nearest - self._now()).total_seconds()
        is_busy = self._workbench.is_busy or self._publishing is not None or self._recorder.has_something
        if not is_busy and self._is_handing_back:
            self._suspend(ready=True)
        elif is_busy or left <= self._host.max_in_place_wait:
            if nearest is not None:
                self._bell.set(nearest, left)
        else:
            self._suspend(ready=False)

    def _suspend(self, *, ready: bool) -> None:
        pending = [operation.wait() for operation in self._replay.pending.values()]
        waits = tuple(wait for wait in pending if wait is not None)
        if not (waits or ready):
            self._end_with(End(error=_stuck()))
            return
        wake_at = min((wait.due_at for wait in waits if wait.due_at is not None), default=None)
        facts = {"last_seq": self._recorder.last_seq, "waits": waits, "wake_at": wake_at, "ready": ready}
        self._say_last(self._voice.says(RunSuspended, self._now(), **facts))

    def _end_with(self, end: End, said: Sequence[Event] = ()) -> None:
        """End the run: say *said*, then what the workflow said of itself last, then how it ended."""
        for operation in self._replay.new:
            if isinstance(operation, StatusOperation):
                self._start_status(operation)
        self._replay.new = []
        self._recorder.keep_only(EntryKind.STATUS_SET)
        events = self._recorder.take_batch(self._now()).events
        self._say_last(*said, *events, self._last_word(end))

    def _last_word(self, end: End) -> Event:
        now, last_seq = self._now(), self._recorder.last_seq
        if end.error is None:
            return self._voice.says(RunCompleted, now, last_seq=last_seq, result=end.result)
        operations = failed_operations(end.error)
        if end.cancelled:
            # All of them: one that a retry of the run does not forgive would end it again at once.
            operations = (*operations, *map(_cancellation, range(1, self._history.cancellations + 1)))
        return self._voice.says(
            RunFailed,
            now,
            last_seq=last_seq,
            failure=failure_of(end.error),
            cancelled=end.cancelled,
            operations=operations,
        )

    def _say_last(self, *events: Event) -> None:
        self._is_ending = True
        self._replay.discard()
        self._workbench.cut_off()
        self._publish(events, lambda: self._conclude(None))


def _cancellation(number: int) -> str:
    return f"cancel#{number}"


def _stuck() -> WorkflowStuckError:
    return WorkflowStuckError(
        "the workflow waits for something that can never happen",
        hint="it awaits no task, timer, signal or child run: look for an Event or a Queue that nobody fills",
    )


_STARTS: dict[type[Operation], Callable[[Machine, Any], None]] = {
    TaskOperation: Machine._start_task,
    ChildOperation: Machine._start_child,
    StatusOperation: Machine._start_status,
    TimerOperation: Machine._start_timer,
    SignalOperation: Machine._start_signal,
}
