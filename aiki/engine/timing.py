"""Moments that come: wake-ups, the end of a lease, the end of a run's time.

Rule 9: a timer never changes a run by itself. It sends an event into the run's
partition, which names the pair and the moment, and counts only while both hold.
"""

from aiki.engine.decision import Decision, Moment
from aiki.engine.dispatching import dispatched, fenced_holder, recovered, recoveries_after_a_loss
from aiki.engine.ending import finished, outcome
from aiki.engine.events import TimerFired
from aiki.engine.journal import Failure
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import RunTimeoutError, type_name

__all__ = ["on_timer_fired"]


def on_timer_fired(run: RunState, event: TimerFired, moment: Moment) -> Decision:
    """Do what was to be done at ``event.due_at``, if that is still to be done."""
    if event.incarnation != run.incarnation:
        return Decision(run, refused=True)
    if run.status.is_final:
        return _fired_at_the_end(run, event, moment)
    if event.due_at == run.timeout_at:
        return _timed_out(run, moment)
    if event.pair != run.pair:
        return Decision(run, refused=True)
    if event.due_at == run.wake_at and (run.status.is_suspended or run.status is RunStatus.SCHEDULED):
        return dispatched(run, event.id, moment, now=event.due_at)
    if event.due_at == run.lease_until and run.status is RunStatus.RUNNING:
        return recovered(run, event.id, moment, recoveries=recoveries_after_a_loss(run))
    return Decision(run, refused=True)


def _fired_at_the_end(run: RunState, event: TimerFired, moment: Moment) -> Decision:
    """Say again what follows from an end that may have come of this very timer (rule 8)."""
    if event.pair == run.pair or event.due_at == run.timeout_at:
        return Decision(run, commands=outcome(run, moment))
    return Decision(run, refused=True)


def _timed_out(run: RunState, moment: Moment) -> Decision:
    failure = Failure(type=type_name(RunTimeoutError), message=f"the run was not over by {run.timeout_at}")
    return finished(run, RunStatus.FAILED, moment, failure=failure, commands=fenced_holder(run))
