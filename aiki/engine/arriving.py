"""What arrives for a run from elsewhere: signals, the ends of its children and of its tasks on other workers.

An item rests in the inbox until the holder journals it, and is live as long as
no journal entry names its id (rule 17). Ends are matched by the id that was
recorded when they were started, and never by an epoch (rule 18).
"""

from aiki.engine.changing import replace
from aiki.engine.commands import Command, NotifyWorker, WorkerNotice
from aiki.engine.decision import Decision, Moment
from aiki.engine.dispatching import dispatched
from aiki.engine.events import ChildFinished, SignalSent, TaskFinished
from aiki.engine.inbox import has_room_for, wakes
from aiki.engine.journal import InboxItem, InboxKind
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = ["on_child_finished", "on_signal_sent", "on_signal_sent_again", "on_task_finished"]


def on_signal_sent(run: RunState, event: SignalSent, moment: Moment) -> Decision:
    """Keep a signal for the run, until it asks for it; one that failed may do so when it is retried."""
    if run.status is RunStatus.COMPLETED or run.expiring:
        return Decision(run)
    item = InboxItem(
        id=event.id,
        kind=InboxKind.SIGNAL,
        name=event.name,
        at=event.at,
        epoch=run.pair.epoch,
        payload=event.payload,
    )
    if not has_room_for(run, item):
        held = f"signal {event.name!r} for run {run.run_id}, which holds {len(run.inbox)} items already"
        return Decision(run, parked=held)
    return _arrived(replace(run, seen=(*run.seen, event.id)), item, event.id, moment)


def on_signal_sent_again(run: RunState, event: SignalSent) -> Decision:
    """Tell the holder once more of a signal that was counted: the word may have been lost (rule 8)."""
    return Decision(run, commands=_word_of(run, event.id))


def on_child_finished(run: RunState, event: ChildFinished, moment: Moment) -> Decision:
    """Keep the end of a child for its parent."""
    item = InboxItem(
        id=event.child_id,
        kind=InboxKind.CHILD,
        name=event.child_id,
        at=event.at,
        epoch=run.pair.epoch,
        payload=event.payload,
        failure=event.failure,
        cancelled=event.cancelled,
    )
    return _ended_elsewhere(run, item, event, moment)


def on_task_finished(run: RunState, event: TaskFinished, moment: Moment) -> Decision:
    """Keep the end of a task that another worker executed."""
    item = InboxItem(
        id=event.task_id,
        kind=InboxKind.TASK,
        name=event.task_id,
        at=event.at,
        epoch=run.pair.epoch,
        payload=event.payload,
        failure=event.failure,
        worker=event.worker,
    )
    return _ended_elsewhere(run, item, event, moment)


def _ended_elsewhere(run: RunState, item: InboxItem, event: ChildFinished | TaskFinished, moment: Moment) -> Decision:
    if item.id not in run.pending or event.incarnation != run.incarnation:
        return Decision(run, refused=True)
    if run.expiring or any(other.id == item.id for other in run.inbox):
        return Decision(run, commands=_word_of(run, item.id))
    return _arrived(run, item, event.id, moment)


def _arrived(run: RunState, item: InboxItem, cause: str, moment: Moment) -> Decision:
    after = replace(run, inbox=(*run.inbox, item))
    if run.status.is_suspended and wakes(run.waits, item):
        return dispatched(after, cause, moment)
    return Decision(after, commands=_word_of(after, item.id))


def _word_of(run: RunState, item_id: str) -> tuple[Command, ...]:
    """Tell the holder, if there is one, of an item that is in the inbox."""
    items = tuple(item for item in run.inbox if item.id == item_id)
    if run.status is not RunStatus.RUNNING or not items:
        return ()
    notice = NotifyWorker(
        worker=run.holder or "", run_id=run.run_id, pair=run.pair, notice=WorkerNotice.ARRIVED, items=items
    )
    return (notice,)
