"""What clients want of runs: that there be one, that it stop, rest, go on, try again.

Rule 17: a client's event carries an id that the run remembers for life, so what
is sent again after an uncertain publish counts once.
"""

from aiki.engine.changing import replace
from aiki.engine.commands import (
    AnnounceAcceptance,
    ArmTimer,
    Command,
    NotifyWorker,
    WorkerNotice,
)
from aiki.engine.decision import Decision, Moment
from aiki.engine.dispatching import dispatched
from aiki.engine.ending import finished, outcome
from aiki.engine.events import (
    CancelRequested,
    ClientEvent,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunRequested,
    WakeRequested,
)
from aiki.engine.journal import Failure
from aiki.engine.retry import RETRY_GRID_MS
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = [
    "on_cancel_requested",
    "on_cancel_requested_again",
    "on_pause_requested",
    "on_pause_requested_again",
    "on_resume_requested",
    "on_retry_requested",
    "on_run_requested",
    "on_run_requested_again",
    "on_wake_requested",
]


def on_run_requested(event: RunRequested, moment: Moment) -> Decision:
    """Accept a run: it exists from now on, and goes to a worker unless it is to start later."""
    run = RunState(
        run_id=event.run_id,
        incarnation=event.incarnation,
        workflow=event.workflow,
        version=event.version,
        queue=event.queue,
        input=event.input,
        input_hash=event.input_hash,
        status=RunStatus.SCHEDULED,
        created_at=event.at,
        requested_by=event.id,
        recoveries_max=event.recoveries_max,
        key=event.key,
        client=event.client,
        parent=event.parent,
        tags=event.tags,
        priority=event.priority,
        retention=event.retention,
        timeout_at=event.timeout_at,
        trace=event.trace,
    )
    if event.start_at is not None and event.start_at > moment.now:
        scheduled = replace(run, wake_at=event.start_at)
        return Decision(scheduled, commands=_acceptance(scheduled, event, existing=False))
    decision = dispatched(run, event.id, moment)
    accepted = decision.run or run
    return replace(decision, commands=(*decision.commands, *_acceptance(accepted, event, existing=False)))


def on_run_requested_again(run: RunState, event: RunRequested, moment: Moment) -> Decision:
    """Answer a request for a run that is there: the same one said again, or another one with the same key."""
    same = event.id == run.requested_by
    if run.expiring and not same:
        # The earlier run of this key is being removed; once it is gone, the key starts clean (rule 16).
        return Decision(run, commands=(ArmTimer(event=event, delay_ms=RETRY_GRID_MS[0]),))
    echo = outcome(run, moment) if same and run.status.is_final else ()
    return Decision(run, commands=(*echo, *_acceptance(run, event, existing=not same)))


def _acceptance(run: RunState, event: RunRequested, *, existing: bool) -> tuple[Command, ...]:
    if not event.answer or event.client is None:
        return ()
    return (
        AnnounceAcceptance(
            client=event.client,
            request_id=event.id,
            run_id=run.run_id,
            workflow=run.workflow,
            version=run.version,
            status=run.status,
            input_hash=run.input_hash,
            existing=existing,
        ),
    )


def _counted(run: RunState, event: ClientEvent) -> RunState:
    return replace(run, seen=(*run.seen, event.id))


def _ignored(run: RunState, event: ClientEvent) -> Decision:
    """Leave the run as it is, and remember that: said again later, in another state, it must not count either."""
    gone = run.status is RunStatus.COMPLETED or run.expiring
    return Decision(run if gone else _counted(run, event))


def on_cancel_requested(run: RunState, event: CancelRequested, moment: Moment) -> Decision:
    """Stop a run that never began at once; let any other one see the cancellation, so that it can clean up."""
    if run.status.is_final:
        return _ignored(run, event)
    counted = replace(_counted(run, event), pause_requested=False)
    if run.started_at is None:
        failure = Failure(type="Cancelled", message="the run was cancelled before it began")
        return finished(counted, RunStatus.CANCELLED, moment, failure=failure)
    # Asked for twice before the holder journaled it, a cancellation is still one: its clean-up is not cancelled too.
    asked = replace(counted, cancel_requested=run.cancel_requested or event.id)
    if run.status in (RunStatus.RUNNING, RunStatus.QUEUED):
        return Decision(asked, commands=_word_of_cancellation(asked))  # While it is queued, there is nobody to tell.
    return dispatched(asked, event.id, moment, recovering=_is_unsure(run))


def on_cancel_requested_again(run: RunState, moment: Moment) -> Decision:
    """Say again what followed from a cancellation that was counted (rule 8)."""
    return Decision(run, commands=outcome(run, moment) if run.status.is_final else _word_of_cancellation(run))


def _word_of_cancellation(run: RunState) -> tuple[Command, ...]:
    return () if run.cancel_requested is None else _told(run, WorkerNotice.CANCEL, source=run.cancel_requested)


def _told(run: RunState, notice: WorkerNotice, *, source: str | None = None) -> tuple[Command, ...]:
    if run.status is not RunStatus.RUNNING or run.holder is None:
        return ()
    return (NotifyWorker(worker=run.holder, run_id=run.run_id, pair=run.pair, notice=notice, source=source),)


def _is_unsure(run: RunState) -> bool:
    """Whether somebody may have taken up the last dispatch and was not heard of, or was lost with it."""
    return run.status is RunStatus.PAUSED and run.holder is None


def on_pause_requested(run: RunState, event: PauseRequested) -> Decision:
    """Let a run rest: at once where no worker holds it, else as soon as its holder can give it back."""
    if run.status.is_final or run.status is RunStatus.PAUSED:
        return _ignored(run, event)
    counted = _counted(run, event)
    if run.status is RunStatus.RUNNING:
        asked = replace(counted, pause_requested=True)
        return Decision(asked, commands=_told(asked, WorkerNotice.PAUSE))
    return Decision(replace(counted, status=RunStatus.PAUSED))


def on_pause_requested_again(run: RunState) -> Decision:
    """Tell the holder once more of a pause that was counted: the word may have been lost (rule 8)."""
    return Decision(run, commands=_told(run, WorkerNotice.PAUSE) if run.pause_requested else ())


def on_resume_requested(run: RunState, event: ResumeRequested, moment: Moment) -> Decision:
    """Let a paused run go on; one that was to start later still does."""
    if run.status.is_final:
        return _ignored(run, event)
    counted = replace(_counted(run, event), pause_requested=False)
    if run.status is not RunStatus.PAUSED:
        return Decision(counted)
    if run.pair.epoch == 0 and run.wake_at is not None and run.wake_at > moment.now:
        return Decision(replace(counted, status=RunStatus.SCHEDULED))
    return dispatched(counted, event.id, moment, recovering=_is_unsure(run))


def on_wake_requested(run: RunState, event: WakeRequested, moment: Moment) -> Decision:
    """Let a run that waits go on now."""
    if run.status is RunStatus.SCHEDULED:
        return dispatched(_counted(run, event), event.id, moment)
    if not run.status.is_suspended:
        return _ignored(run, event)
    return dispatched(replace(_counted(run, event), woken=True), event.id, moment)


def on_retry_requested(run: RunState, event: RetryRequested, moment: Moment) -> Decision:
    """Open a run again that failed, was cancelled or dead-lettered: what it recorded stays, what ended it is void.

    One that is queued is sent again: its order may be what was parked with the dead letters.
    """
    if run.status is RunStatus.QUEUED:
        return dispatched(_counted(run, event), event.id, moment, recovering=True)
    if not run.status.is_final or run.status is RunStatus.COMPLETED or run.expiring:
        return _ignored(run, event)
    reopened = replace(
        _counted(run, event),
        result=None,
        failure=None,
        failed_operations=(),
        finished_at=None,
        expires_at=None,
        timeout_at=None,
        recoveries=0,
        forgiven=tuple(dict.fromkeys((*run.forgiven, *run.failed_operations))),
    )
    # What it had started elsewhere may have been lost with its end.
    return dispatched(reopened, event.id, moment, recovering=True)
