"""How a run moves. Every event comes through here, and every transition follows from it.

Nothing below does I/O, reads a clock or draws a random number: time comes in with
the moment, work goes out as commands. So a rule is tested by calling a function,
and the same events always lead to the same state.

An event may come any number of times, late, and from workers that no longer count.
"""

from typing import assert_never, get_args

from aiki.engine.arriving import on_child_finished, on_signal_sent, on_signal_sent_again, on_task_finished
from aiki.engine.changing import replace
from aiki.engine.decision import Decision, Moment
from aiki.engine.dispatching import doubt, fence, on_dispatch_doubted, on_run_orphaned
from aiki.engine.events import (
    CancelRequested,
    ChildFinished,
    ClientEvent,
    DispatchDoubted,
    Event,
    JournalAppended,
    LeaseRenewed,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunCompleted,
    RunFailed,
    RunOrphaned,
    RunRequested,
    RunStarted,
    RunSuspended,
    SignalSent,
    TaskFinished,
    TaskScheduled,
    TimerFired,
    WakeRequested,
    WorkerEvent,
)
from aiki.engine.holding import (
    on_journal_appended,
    on_lease_renewed,
    on_run_completed,
    on_run_failed,
    on_run_started,
    on_run_suspended,
    on_task_scheduled,
)
from aiki.engine.requesting import (
    on_cancel_requested,
    on_cancel_requested_again,
    on_pause_requested,
    on_pause_requested_again,
    on_resume_requested,
    on_retry_requested,
    on_run_requested,
    on_run_requested_again,
    on_wake_requested,
)
from aiki.engine.state import RunState
from aiki.engine.timing import on_timer_fired

__all__ = ["Decision", "Moment", "decide"]

_WORKER_EVENTS = get_args(WorkerEvent)
_CLIENT_EVENTS = get_args(ClientEvent)


def decide(run: RunState | None, event: Event, moment: Moment) -> Decision:
    """Apply *event* to *run* (``None``: there is no such run) and tell what follows.

    Never raises, whatever the event says. ``decision.run`` has the revision of *run*: whoever writes it
    raises that once for all events of a batch.
    """
    if run is None:
        return _without_a_run(event, moment)
    if event.id == run.cause:
        return _caused_already(run, event, moment)
    if isinstance(event, _CLIENT_EVENTS) and event.id in run.seen:
        return _counted_already(run, event, moment)
    if isinstance(event, _WORKER_EVENTS) and event.incarnation != run.incarnation:
        return fence(run, event)
    return _answer(run, event, moment)


def _without_a_run(event: Event, moment: Moment) -> Decision:
    """Only a request makes a run; a worker that speaks for one that is gone is told so."""
    if isinstance(event, RunRequested):
        return on_run_requested(event, moment)
    if isinstance(event, _WORKER_EVENTS):
        return fence(None, event)
    return Decision(None, refused=True)


def _caused_already(run: RunState, event: Event, moment: Moment) -> Decision:
    """Meet the cause of the current dispatch again: whether that was sent, only the marker can tell (rule 2)."""
    marker = doubt(run, moment)
    if not isinstance(event, RunRequested):
        return Decision(run, commands=marker)
    again = on_run_requested_again(run, event, moment)
    return replace(again, commands=(*marker, *again.commands))


def _counted_already(run: RunState, event: Event, moment: Moment) -> Decision:
    """Say again what a client's event led to: it may have been stored, and what followed not sent (rule 8)."""
    match event:
        case CancelRequested():
            return on_cancel_requested_again(run, moment)
        case PauseRequested():
            return on_pause_requested_again(run)
        case SignalSent():
            return on_signal_sent_again(run, event)
        case _:
            return Decision(run)  # The others lead to nothing but dispatches, and those have their cause.


def _answer(run: RunState, event: Event, moment: Moment) -> Decision:  # noqa: C901 - the one list of all events, without logic
    match event:
        case RunRequested():
            return on_run_requested_again(run, event, moment)
        case RunStarted():
            return on_run_started(run, event)
        case JournalAppended():
            return on_journal_appended(run, event, moment)
        case TaskScheduled():
            return on_task_scheduled(run, event, moment)
        case RunSuspended():
            return on_run_suspended(run, event, moment)
        case RunCompleted():
            return on_run_completed(run, event, moment)
        case RunFailed():
            return on_run_failed(run, event, moment)
        case RunOrphaned():
            return on_run_orphaned(run, event, moment)
        case LeaseRenewed():
            return on_lease_renewed(run, event, moment)
        case DispatchDoubted():
            return on_dispatch_doubted(run, event, moment)
        case TimerFired():
            return on_timer_fired(run, event, moment)
        case SignalSent():
            return on_signal_sent(run, event, moment)
        case ChildFinished():
            return on_child_finished(run, event, moment)
        case TaskFinished():
            return on_task_finished(run, event, moment)
        case CancelRequested():
            return on_cancel_requested(run, event, moment)
        case PauseRequested():
            return on_pause_requested(run, event)
        case ResumeRequested():
            return on_resume_requested(run, event, moment)
        case WakeRequested():
            return on_wake_requested(run, event, moment)
        case RetryRequested():
            return on_retry_requested(run, event, moment)
        case _:
            assert_never(event)  # A new kind of event fails type checking here.
