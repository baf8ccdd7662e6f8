"""Dispatching: how a run gets to a worker, and how the engine finds out whether it did.

Rule 1: a dispatch has a pair of its own, and its command is sent once. Rule 2: a
cause that is delivered again does not dispatch; it sends a marker behind the
backlog, and only the marker does, if nothing was heard of the dispatch meanwhile.
Rule 4: only dispatches that were started and journaled nothing count against a run.
"""

from datetime import datetime

from aiki.engine.changing import replace
from aiki.engine.commands import Command, ExecuteRun, NotifyWorker, SendEvent, WorkerNotice
from aiki.engine.decision import Decision, Moment
from aiki.engine.ending import buried, outcome
from aiki.engine.events import DispatchDoubted, RunOrphaned, WorkerEvent
from aiki.engine.inbox import carried
from aiki.engine.journal import JournalEntry
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus

__all__ = [
    "awaits_elsewhere",
    "dispatched",
    "doubt",
    "fence",
    "fenced_holder",
    "has_past",
    "on_dispatch_doubted",
    "on_run_orphaned",
    "recovered",
    "recoveries_after_a_loss",
    "superseded",
]


def dispatched(
    run: RunState,
    cause: str,
    moment: Moment,
    *,
    now: datetime | None = None,
    recovering: bool = False,
    journal: tuple[JournalEntry, ...] = (),
    commands: tuple[Command, ...] = (),
) -> Decision:
    """Send *run* to its workers under a new pair. *cause* is the event that will be recognised if it comes again."""
    after = replace(
        run,
        status=RunStatus.QUEUED,
        pair=Pair(run.pair.epoch + 1, moment.token),
        cause=cause,
        base_seq=run.last_seq,
        holder=None,
        lease_until=None,
        wake_at=None,
        dispatched_at=moment.now,
        alone=run.recoveries > run.recoveries_max,
    )
    order = execute_run(after, now=max(moment.now, now or moment.now), recovering=recovering)
    return Decision(after, journal, (*commands, order))


def execute_run(run: RunState, *, now: datetime, recovering: bool) -> ExecuteRun:
    """Write the order for the current pair; the journal is filled in by whoever can read it."""
    return ExecuteRun(
        queue=run.queue,
        run_id=run.run_id,
        incarnation=run.incarnation,
        pair=run.pair,
        workflow=run.workflow,
        version=run.version,
        input=run.input,
        now=now,
        created_at=run.created_at,
        started_at=run.started_at if has_past(run) else None,
        base_seq=run.base_seq,
        waits=run.waits,
        inbox=carried(run.inbox, run.waits),
        cancel_requested=run.cancel_requested,
        woken=run.woken,
        forgiven=run.forgiven,
        recovered=recovering,
        alone=run.alone,
        key=run.key,
        parent=run.parent,
        tags=run.tags,
        priority=run.priority,
        timeout_at=run.timeout_at,
        trace=run.trace,
    )


def has_past(run: RunState) -> bool:
    """Whether the current dispatch goes on with anything: before, nothing depends on the time of an earlier start."""
    return run.base_seq > 0 or bool(run.waits)


def doubt(run: RunState, moment: Moment) -> tuple[Command, ...]:
    """Send the marker that decides about the current dispatch, unless somebody has started it already (rule 2)."""
    if run.status is not RunStatus.QUEUED:
        return ()
    marker = DispatchDoubted(
        id=f"doubt:{run.pair.epoch}:{run.pair.dispatch_id}",
        run_id=run.run_id,
        at=moment.now,
        incarnation=run.incarnation,
        pair=run.pair,
    )
    return (SendEvent(event=marker),)


def on_dispatch_doubted(run: RunState, event: DispatchDoubted, moment: Moment) -> Decision:
    """Dispatch again if the marker overtook nothing: all that the dispatch led to would have been heard by now."""
    if event.pair != run.pair or event.incarnation != run.incarnation:
        return Decision(run, refused=True)
    waits_for_lost = event.queues_lost and awaits_elsewhere(run)
    if run.status is RunStatus.QUEUED or (waits_for_lost and run.status.is_suspended):
        return dispatched(run, event.id, moment, recovering=True)
    if waits_for_lost and run.status is RunStatus.PAUSED:
        return Decision(replace(run, holder=None))  # Whoever resumes it must not take anything for granted.
    return Decision(run, refused=True)


def awaits_elsewhere(run: RunState) -> bool:
    """Whether tasks or children that the run started elsewhere have not been heard of."""
    return not {item.id for item in run.inbox}.issuperset(run.pending)


def fence(run: RunState | None, event: WorkerEvent) -> Decision:
    """Refuse what a worker says, and tell it (rule 3)."""
    notice = NotifyWorker(worker=event.worker, run_id=event.run_id, pair=event.pair, notice=WorkerNotice.FENCED)
    return Decision(run, commands=(notice,), refused=True)


def superseded(run: RunState, event: WorkerEvent, moment: Moment) -> Decision:
    """Give up a dispatch whose record does not fit ours (rule 7: a gap fences the pair), and make a new one.

    It counts like the loss of its worker, or a run whose record never fits would go round for ever.
    """
    return recovered(run, event.id, moment, recoveries=recoveries_after_a_loss(run))


def on_run_orphaned(run: RunState, event: RunOrphaned, moment: Moment) -> Decision:
    """Make a new dispatch of a run whose command came back from a worker that is gone."""
    if event.pair == run.pair and run.status.is_final:
        return Decision(run, commands=outcome(run, moment))  # It may be what ended the run (rule 8).
    if event.pair != run.pair or run.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
        return Decision(run, refused=True)
    if event.handed_back:
        return recovered(run, event.id, moment, recoveries=_losses_so_far(run))
    return recovered(run, event.id, moment, recoveries=recoveries_after_a_loss(run))


def recoveries_after_a_loss(run: RunState) -> int:
    """Count the loss of the current dispatch, if it was started and learnt nothing new (rule 4)."""
    is_loss = run.holder is not None and run.last_seq <= run.base_seq
    return _losses_so_far(run) + is_loss


def _losses_so_far(run: RunState) -> int:
    """Tell what counts against the run: losses in a row, and a dispatch that learnt something new ends the row."""
    return 0 if run.last_seq > run.base_seq else run.recoveries


def recovered(run: RunState, cause: str, moment: Moment, *, recoveries: int) -> Decision:
    """Go on without the lost holder; a run under suspicion goes on alone, and is parked if that fails too (rule 4)."""
    told = fenced_holder(run)
    if run.alone and recoveries > max(run.recoveries, run.recoveries_max):
        return buried(run, moment, recoveries=recoveries, commands=told)
    after = replace(run, recoveries=recoveries)
    if run.pause_requested:
        paused = replace(after, status=RunStatus.PAUSED, holder=None, lease_until=None, pause_requested=False)
        return Decision(paused, commands=told)
    return dispatched(after, cause, moment, recovering=True, commands=told)


def fenced_holder(run: RunState) -> tuple[Command, ...]:
    """Tell the holder, should it still be there (frozen, cut off), that the run is no longer its own."""
    if run.holder is None:
        return ()
    return (NotifyWorker(worker=run.holder, run_id=run.run_id, pair=run.pair, notice=WorkerNotice.FENCED),)
