"""What clients want of runs: that there be one, that it stop, rest, go on, try again.

Rule 17: a client's event carries an id that the run remembers for life, so what
is sent again after an uncertain publish counts once.
"""

from dataclasses import replace

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
    "CANCELLATION",
    "on_cancel_requested",
    "on_pause_requested",
    "on_resume_requested",
    "on_retry_requested",
    "on_run_requested",
    "on_run_requested_again",
    "on_wake_requested",
]

CANCELLATION = "cancel"
"""What a retry of a cancelled run forgives: the cancellation that its journal records."""


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
    if run.expiring:
        # The earlier run of this key is being removed; once it is gone, the key starts clean (rule 16).
        return Decision(run, commands=(ArmTimer(event=event, delay_ms=RETRY_GRID_MS[0]),))
    same = event.id == run.requested_by
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


def on_cancel_requested(run: RunState, event: CancelRequested, moment: Moment) -> Decision:
    """Stop a run that never began at once; let any other one see the cancellation, so that it can clean up."""
    if run.status.is_final:
        return Decision(run)
    counted = replace(_counted(run, event), pause_requested=False)
    if run.started_at is None:
        failure = Failure(type="Cancelled", message="the run was cancelled before it began")
        return finished(counted, RunStatus.CANCELLED, moment, failure=failure)
    asked = replace(counted, cancel_requested=event.id)
    if run.status is RunStatus.RUNNING:
        return Decision(asked, commands=_told(asked, WorkerNotice.CANCEL, source=event.id))
    if run.status is RunStatus.QUEUED:
        return Decision(asked)  # Its worker is told when it starts.
    return dispatched(asked, event.id, moment)


def _told(run: RunState, notice: WorkerNotice, *, source: str | None = None) -> tuple[Command, ...]:
    worker = run.holder or ""
    return (NotifyWorker(worker=worker, run_id=run.run_id, pair=run.pair, notice=notice, source=source),)


def on_pause_requested(run: RunState, event: PauseRequested) -> Decision:
    """Let a run rest: at once where no worker holds it, else as soon as its holder can give it back."""
    if run.status.is_final or run.status is RunStatus.PAUSED:
        return Decision(run)
    counted = _counted(run, event)
    if run.status is RunStatus.RUNNING:
        asked = replace(counted, pause_requested=True)
        return Decision(asked, commands=_told(asked, WorkerNotice.PAUSE))
    return Decision(replace(counted, status=RunStatus.PAUSED))


def on_resume_requested(run: RunState, event: ResumeRequested, moment: Moment) -> Decision:
    """Let a paused run go on; one that was to start later still does."""
    counted = replace(_counted(run, event), pause_requested=False)
    if run.status is not RunStatus.PAUSED:
        return Decision(counted if run.pause_requested else run)
    if run.pair.epoch == 0 and run.wake_at is not None and run.wake_at > moment.now:
        return Decision(replace(counted, status=RunStatus.SCHEDULED))
    return dispatched(counted, event.id, moment)


def on_wake_requested(run: RunState, event: WakeRequested, moment: Moment) -> Decision:
    """Let a run that waits go on now."""
    if run.status is RunStatus.SCHEDULED:
        return dispatched(_counted(run, event), event.id, moment)
    if not run.status.is_suspended:
        return Decision(run)
    return dispatched(replace(_counted(run, event), woken=True), event.id, moment)


def on_retry_requested(run: RunState, event: RetryRequested, moment: Moment) -> Decision:
    """Open a run again that failed, was cancelled or dead-lettered: what it recorded stays, what ended it is void."""
    if not run.status.is_final or run.status is RunStatus.COMPLETED or run.expiring:
        return Decision(run)
    cancelled = (CANCELLATION,) if run.status is RunStatus.CANCELLED and run.last_seq else ()
    reopened = replace(
        _counted(run, event),
        result=None,
        failure=None,
        failed_operations=(),
        finished_at=None,
        expires_at=None,
        timeout_at=None,
        recoveries=0,
        forgiven=(*run.failed_operations, *cancelled),
    )
    return dispatched(reopened, event.id, moment)
