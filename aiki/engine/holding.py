"""What the holder of a run says: it started, it learnt something, it gives the run back, it is done.

All of it counts only under the current pair, from the worker that is bound to
it, and without a gap (rules 1, 3, 7); all of it may be said twice.
"""

from datetime import timedelta

from aiki.engine.changing import replace
from aiki.engine.commands import (
    AnnounceProgress,
    ArmTimer,
    Command,
    ExecuteTask,
    NotifyWorker,
    WorkerNotice,
)
from aiki.engine.decision import Decision, Moment
from aiki.engine.dispatching import dispatched, fence, has_past, superseded
from aiki.engine.ending import finished, outcome
from aiki.engine.events import (
    JournalAppended,
    LeaseRenewed,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunSuspended,
    TaskScheduled,
    TimerFired,
    WorkerEvent,
)
from aiki.engine.inbox import carried, wakes
from aiki.engine.journal import EntryKind, JournalEntry, Wait, WaitKind
from aiki.engine.retry import RETRY_GRID_MS
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = [
    "implied_by_suspension",
    "is_under_way",
    "learnt",
    "on_journal_appended",
    "on_lease_renewed",
    "on_run_completed",
    "on_run_failed",
    "on_run_started",
    "on_run_suspended",
    "on_task_scheduled",
]

# A run whose holder is gone waits for the end of its lease: who says more than this cannot mean it.
_LEASE_MAX = timedelta(days=30)

# A retry that is due this much earlier or later than its queue would bring it back waits in the heap instead.
_RETRY_TOLERANCE_MS = 60

_STATUS_OF_WAIT = {
    WaitKind.TASK: RunStatus.AWAITING_TASK,
    WaitKind.CHILD: RunStatus.AWAITING_CHILD,
    WaitKind.SIGNAL: RunStatus.AWAITING_SIGNAL,
    WaitKind.RETRY: RunStatus.AWAITING_RETRY,
    WaitKind.TIMER: RunStatus.SLEEPING,
}

_STARTS_ELSEWHERE = frozenset({EntryKind.TASK_SCHEDULED, EntryKind.CHILD_STARTED})


def _is_holder(run: RunState, event: WorkerEvent) -> bool:
    return event.pair == run.pair and run.holder == event.worker


def on_run_started(run: RunState, event: RunStarted) -> Decision:
    """Bind the dispatch to the first worker that starts it; any other one is refused (rule 1)."""
    if event.pair != run.pair or run.holder not in (None, event.worker):
        return fence(run, event)
    if run.status is RunStatus.RUNNING:
        return Decision(run, commands=_missed_while_queued(run))
    if run.status is not RunStatus.QUEUED:
        # Paused while the command waited is over for this pair; suspended or final means that this is an echo.
        return fence(run, event) if run.holder is None else Decision(run)
    after = replace(
        run,
        status=RunStatus.RUNNING,
        holder=event.worker,
        started_at=run.started_at if has_past(run) and run.started_at is not None else event.at,
    )
    return Decision(after, commands=_missed_while_queued(after))


def _missed_while_queued(run: RunState) -> tuple[Command, ...]:
    """Say what came after the order was written and so is not in it."""
    notices: list[Command] = []
    holder = run.holder or ""
    if run.cancel_requested:
        notices.append(
            NotifyWorker(
                worker=holder,
                run_id=run.run_id,
                pair=run.pair,
                notice=WorkerNotice.CANCEL,
                source=run.cancel_requested,
            )
        )
    if run.pause_requested:
        notices.append(NotifyWorker(worker=holder, run_id=run.run_id, pair=run.pair, notice=WorkerNotice.PAUSE))
    arrived = carried((item for item in run.inbox if item.epoch == run.pair.epoch), run.waits)
    if arrived:
        notices.append(
            NotifyWorker(worker=holder, run_id=run.run_id, pair=run.pair, notice=WorkerNotice.ARRIVED, items=arrived)
        )
    return tuple(notices)


def on_journal_appended(run: RunState, event: JournalAppended, moment: Moment) -> Decision:
    """Take over what the holder learnt, if it follows on what is there."""
    return _taken_over(run, event, event.entries, moment)


def _taken_over(run: RunState, event: WorkerEvent, entries: tuple[JournalEntry, ...], moment: Moment) -> Decision:
    if not (_is_holder(run, event) or _is_recorded_at_rest(run, event, entries)):
        return fence(run, event)
    if run.status is RunStatus.RUNNING:
        return _appended(run, event, entries, moment)
    if any(entry.seq > run.last_seq for entry in entries):
        return _beyond_the_end(run, event, moment)
    return Decision(run)


def _is_recorded_at_rest(run: RunState, event: WorkerEvent, entries: tuple[JournalEntry, ...]) -> bool:
    """Tell whether *entries* are in the journal of a run that was paused before its holder was heard of.

    They count, so the run has to know what follows from them: what it started elsewhere, above all.
    """
    is_unheld = run.status is RunStatus.PAUSED and run.holder is None and event.pair == run.pair
    return is_unheld and bool(entries) and all(entry.seq <= run.last_seq for entry in entries)


def _beyond_the_end(run: RunState, event: WorkerEvent, moment: Moment) -> Decision:
    """Refuse what a holder learnt when its run was over, or at rest; it did not hear of it, or ended it by this."""
    refusal = fence(run, event)
    said_again = outcome(run, moment) if run.status.is_final else ()
    return replace(refusal, commands=(*refusal.commands, *said_again))


def on_task_scheduled(run: RunState, event: TaskScheduled, moment: Moment) -> Decision:
    """Journal that a task goes to another queue, and send it there; again, if it is said again (rule 8).

    Even under an earlier pair: the run may have been dispatched again by what came with it, and only that was sent.
    """
    entries = () if event.entry is None else (event.entry,)
    decision = _taken_over(run, event, entries, moment)
    if decision.run is None or not is_under_way(decision.run, event.task_id):
        return decision
    order = ExecuteTask(
        queue=event.queue,
        run_id=run.run_id,
        incarnation=run.incarnation,
        task_id=event.task_id,
        task=event.task,
        operation=event.operation,
        attempt=event.attempt,
        input=event.input,
        idempotency_key=event.idempotency_key,
        timeout=event.timeout,
        trace=event.trace,
    )
    return replace(decision, commands=(*decision.commands, order))


def is_under_way(run: RunState, key: str) -> bool:
    """Whether *run* still waits for what it started elsewhere as *key*: what ended must not be started once more."""
    return key in run.pending and all(item.id != key for item in run.inbox)


def _appended(run: RunState, event: WorkerEvent, entries: tuple[JournalEntry, ...], moment: Moment) -> Decision:
    new = tuple(entry for entry in entries if entry.seq > run.last_seq)
    expected = range(run.last_seq + 1, run.last_seq + 1 + len(new))
    if [entry.seq for entry in new] != [*expected] or any(entry.epoch != run.pair.epoch for entry in entries):
        return superseded(run, event, moment)

    after = learnt(replace(run, last_seq=run.last_seq + len(new), base_seq=_past_clocks(run, entries)), new)
    return Decision(after, journal=new, commands=_progress(run, after, moment))


def _past_clocks(run: RunState, entries: tuple[JournalEntry, ...]) -> int:
    """Move the base of the dispatch past the clock entries that it begins with, each time, before anything is done."""
    base = run.base_seq
    for entry in entries:
        if entry.seq == base + 1 and entry.kind is EntryKind.CLOCK:
            base += 1
    return base


def learnt(run: RunState, entries: tuple[JournalEntry, ...]) -> RunState:
    """Change of *run* what depends on *entries* beyond their number; the same run if nothing does, as with most."""
    named = frozenset(entry.source for entry in entries if entry.source is not None)
    retried = frozenset(entry.operation for entry in entries if entry.kind is EntryKind.RETRIED)
    notes = [entry.payload for entry in entries if entry.kind is EntryKind.STATUS_SET]
    if not (entries and (named or retried or notes or run.woken)):
        return run
    started = [entry.source for entry in entries if entry.kind in _STARTS_ELSEWHERE and entry.source is not None]
    ended = {entry.source for entry in entries if entry.kind not in _STARTS_ELSEWHERE}
    return replace(
        run,
        learnt_seq=entries[-1].seq,
        inbox=tuple(item for item in run.inbox if item.id not in ended),
        pending=tuple(key for key in dict.fromkeys((*run.pending, *started)) if key not in ended),
        forgiven=tuple(operation for operation in run.forgiven if operation not in retried),
        cancel_requested=None if run.cancel_requested in named else run.cancel_requested,
        note=notes[-1] if notes else run.note,
        woken=False,
    )


def _progress(before: RunState, after: RunState, moment: Moment) -> tuple[Command, ...]:
    if before.note == after.note and before.status is after.status:
        return ()
    return (
        AnnounceProgress(
            run_id=after.run_id,
            workflow=after.workflow,
            version=after.version,
            status=after.status,
            at=moment.now,
            note=after.note,
        ),
    )


def on_run_suspended(run: RunState, event: RunSuspended, moment: Moment) -> Decision:
    """Let the run rest, unless what it waits for is there already (rule 10)."""
    if not _is_holder(run, event):
        return fence(run, event)
    if run.status.is_final:
        return Decision(run, commands=outcome(run, moment))
    if run.status is not RunStatus.RUNNING:
        return Decision(run, commands=implied_by_suspension(run, moment))
    if event.last_seq != run.last_seq:
        return superseded(run, event, moment)

    # A holder that stops may give the run back before it came to let it be woken.
    woken = run.woken and event.ready
    rested = replace(run, waits=event.waits, wake_at=event.wake_at, lease_until=None, woken=woken, recoveries=0)
    if run.pause_requested:
        after = replace(rested, status=RunStatus.PAUSED, pause_requested=False)
    elif event.ready or _has_reason_to_go_on(rested, moment):
        return dispatched(rested, event.id, moment)
    else:
        after = replace(rested, status=_status_of(event.waits))
    return Decision(after, commands=(*implied_by_suspension(after, moment), *_progress(run, after, moment)))


def _has_reason_to_go_on(run: RunState, moment: Moment) -> bool:
    due = run.wake_at is not None and run.wake_at <= moment.now
    return due or run.cancel_requested is not None or any(wakes(run.waits, item) for item in run.inbox)


def _status_of(waits: tuple[Wait, ...]) -> RunStatus:
    kinds = {wait.kind for wait in waits}
    return next((status for kind, status in _STATUS_OF_WAIT.items() if kind in kinds), RunStatus.SLEEPING)


def implied_by_suspension(run: RunState, moment: Moment) -> tuple[Command, ...]:
    """Send the nearest retry through its delay queue; every other wake-up is the business of the owner's heap."""
    if not run.status.is_suspended or run.wake_at is None:
        return ()
    left = (run.wake_at - moment.now).total_seconds() * 1000
    for wait in run.waits:
        if (
            wait.kind is WaitKind.RETRY
            and wait.due_at == run.wake_at
            and wait.delay_ms in RETRY_GRID_MS
            and abs(wait.delay_ms - left) <= _RETRY_TOLERANCE_MS
        ):
            return (ArmTimer(event=wake_up(run, moment), delay_ms=wait.delay_ms),)
    return ()


def wake_up(run: RunState, moment: Moment) -> TimerFired:
    """Write the event that says that ``wake_at`` of *run* has come; it changes nothing if the run has moved on."""
    due_at = run.wake_at or moment.now
    return TimerFired(
        id=f"timer:{run.pair.epoch}:{run.pair.dispatch_id}:{due_at.isoformat()}",
        run_id=run.run_id,
        at=moment.now,
        incarnation=run.incarnation,
        pair=run.pair,
        due_at=due_at,
    )


def on_run_completed(run: RunState, event: RunCompleted, moment: Moment) -> Decision:
    """End the run with its result."""
    early = _before_the_end(run, event, moment)
    return early or finished(run, RunStatus.COMPLETED, moment, result=event.result)


def on_run_failed(run: RunState, event: RunFailed, moment: Moment) -> Decision:
    """End the run with what went wrong."""
    early = _before_the_end(run, event, moment)
    status = RunStatus.CANCELLED if event.cancelled else RunStatus.FAILED
    return early or finished(run, status, moment, failure=event.failure, operations=event.operations)


def _before_the_end(run: RunState, event: RunCompleted | RunFailed, moment: Moment) -> Decision | None:
    if not _is_holder(run, event):
        return fence(run, event)
    if run.status.is_final:
        return Decision(run, commands=outcome(run, moment))
    if run.status is not RunStatus.RUNNING:
        return Decision(run)
    return None if event.last_seq == run.last_seq else superseded(run, event, moment)


def on_lease_renewed(run: RunState, event: LeaseRenewed, moment: Moment) -> Decision:
    """Note until when the holder goes on without holding its command.

    The lease is as long as the holder says and begins now, by our clock: it is we who say when it is over, and what
    the clocks of two machines have between them is no part of it. It never ends before the holder believes so,
    whose count began when it said this.
    """
    if not _is_holder(run, event) or run.status is not RunStatus.RUNNING:
        return fence(run, event)
    lease = min(max(event.until - event.at, timedelta()), _LEASE_MAX)
    return Decision(replace(run, lease_until=moment.now + lease))
