"""Endings: what becomes of a run that is over, and who has to hear of it.

Rule 8: whatever a final run implies is sent again whenever the event that ended
it is seen again, so a crash between the write and the sending loses nothing.
"""

from datetime import timedelta

from aiki.engine.changing import replace
from aiki.engine.commands import AnnounceOutcome, Command, DeadLetter, ParkDeadLetter, SendEvent
from aiki.engine.decision import Decision, Moment
from aiki.engine.events import ChildFinished
from aiki.engine.ids import letter_id_of
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = ["buried", "finished", "outcome"]


# A hundred years from now is still a date; whoever wants more wants for ever.
RETENTION_SECONDS_MAX = 100 * 365 * 86_400.0


def finished(
    run: RunState,
    status: RunStatus,
    moment: Moment,
    *,
    result: Payload | None = None,
    failure: Failure | None = None,
    operations: tuple[str, ...] = (),
    commands: tuple[Command, ...] = (),
) -> Decision:
    """End *run*. It keeps its last pair, so that what its holder says again is still recognised.

    Unless it completed, it may be retried, and goes on then with what had arrived and what was under way elsewhere.
    """
    retention = moment.retention if run.retention is None else run.retention
    is_done = status is RunStatus.COMPLETED
    after = replace(
        run,
        status=status,
        result=result,
        failure=failure,
        failed_operations=operations,
        finished_at=moment.now,
        expires_at=moment.now + timedelta(seconds=min(max(retention, 0.0), RETENTION_SECONDS_MAX)),
        waits=(),
        wake_at=None,
        lease_until=None,
        inbox=() if is_done else run.inbox,
        pending=() if is_done else run.pending,
        cancel_requested=None,
        pause_requested=False,
        woken=False,
    )
    return Decision(after, commands=(*commands, *outcome(after, moment)))


def buried(run: RunState, moment: Moment, *, recoveries: int, commands: tuple[Command, ...] = ()) -> Decision:
    """Stop a run that kills its workers: parked with everything needed to look into it and to send it again."""
    failure = Failure(
        type="WorkerLost",
        message=(
            f"{recoveries} workers in a row were lost while they executed this run, the last one with nothing "
            "beside it, and none recorded anything. Look at what its next task does to the process, then redrive it."
        ),
    )
    return finished(
        replace(run, recoveries=recoveries), RunStatus.DEAD_LETTERED, moment, failure=failure, commands=commands
    )


def outcome(run: RunState, moment: Moment) -> tuple[Command, ...]:
    """Say everything that a final run implies: to those who watch, to its parent, to the dead letters."""
    announcement = AnnounceOutcome(
        client=run.client,
        run_id=run.run_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        input_hash=run.input_hash,
        at=run.finished_at or moment.now,
        result=run.result,
        failure=run.failure,
    )
    return (*_letter(run, moment), *_word_to_parent(run, moment), announcement)


def _word_to_parent(run: RunState, moment: Moment) -> tuple[Command, ...]:
    if run.parent is None:
        return ()
    word = ChildFinished(
        id=f"finished:{run.run_id}:{run.pair.epoch}",
        run_id=run.parent.run_id,
        at=moment.now,
        incarnation=run.parent.incarnation,
        child_id=run.run_id,
        payload=run.result,
        failure=run.failure,
        cancelled=run.status is RunStatus.CANCELLED,
    )
    return (SendEvent(event=word),)


def _letter(run: RunState, moment: Moment) -> tuple[Command, ...]:
    if run.status is not RunStatus.DEAD_LETTERED or run.failure is None:
        return ()
    letter = DeadLetter(
        id=letter_id_of(run.run_id, run.incarnation, run.pair.epoch),
        reason="the run kills its workers",
        at=run.finished_at or moment.now,
        origin=run.queue,
        body=run.input,
        run_id=run.run_id,
        workflow=run.workflow,
        detail=run.failure.message,
    )
    return (ParkDeadLetter(letter=letter),)
