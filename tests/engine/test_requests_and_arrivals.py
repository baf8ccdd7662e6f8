"""Rules 16 to 18 of the design, and what clients may ask of a run in each of its states."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from aiki.engine.commands import (
    AnnounceAcceptance,
    AnnounceOutcome,
    ArmTimer,
    ExecuteRun,
    NotifyWorker,
    SendEvent,
    WorkerNotice,
)
from aiki.engine.decide import Decision, decide
from aiki.engine.events import (
    CancelRequested,
    ChildFinished,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    TaskFinished,
    TimerFired,
    WakeRequested,
)
from aiki.engine.inbox import INBOX_ITEMS_MAX
from aiki.engine.journal import EntryKind, InboxItem, InboxKind, Wait, WaitKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import Parent, RunState
from aiki.engine.status import RunStatus
from aiki.testing.builders import (
    T0,
    a_moment,
    a_run,
    after,
    appended,
    completed,
    entry,
    failed,
    orphaned,
    requested,
    running,
    sleeping,
    started,
    suspended,
)

C = TypeVar("C")


def of(kind: type[C], decision: Decision) -> list[C]:
    return [command for command in decision.commands if isinstance(command, kind)]


def client_event(kind: type, run: RunState, number: int = 1, **more: object) -> Any:
    return kind(id=f"{kind.__name__}-{number}", run_id=run.run_id, at=T0, **more)


def signal(run: RunState, number: int = 1, name: str = "approved") -> SignalSent:
    return SignalSent(id=f"signal-{number}", run_id=run.run_id, at=T0, name=name, payload=dump_payload(number))


def scheduled_run() -> RunState:
    return after(None, requested(start_at=T0 + timedelta(hours=1)))


def test_a_delayed_run_waits_without_being_dispatched() -> None:
    decision = decide(None, requested(start_at=T0 + timedelta(hours=1)), a_moment())

    assert decision.run is not None
    assert decision.run.status is RunStatus.SCHEDULED
    assert decision.run.due_at == T0 + timedelta(hours=1)
    assert of(ExecuteRun, decision) == []


def test_a_delayed_run_is_dispatched_when_its_time_comes() -> None:
    run = scheduled_run()
    fired = TimerFired(
        id="t", run_id=run.run_id, at=T0, incarnation=run.incarnation, pair=run.pair, due_at=T0 + timedelta(hours=1)
    )

    assert len(of(ExecuteRun, decide(run, fired, a_moment(seconds=3600)))) == 1


def test_the_client_that_waits_for_it_hears_that_its_run_is_stored() -> None:
    decision = decide(None, requested(client="c1", answer=True), a_moment())

    [answer] = of(AnnounceAcceptance, decision)
    assert (answer.client, answer.existing) == ("c1", False)


def test_a_second_request_with_the_same_key_hears_of_the_run_that_is_there() -> None:
    run = a_run(run_id="r", key="k")
    other = requested("r", key="k", client="c2", answer=True, input_hash="another")

    decision = decide(run, other, a_moment())

    assert decision.run == run
    [answer] = of(AnnounceAcceptance, decision)
    assert (answer.client, answer.existing, answer.input_hash) == ("c2", True, run.input_hash)
    assert of(ExecuteRun, decision) == []


def test_rule_8_a_request_said_again_after_the_end_announces_the_end_again() -> None:
    event = requested(client="c1")
    run = after(None, event)
    run = after(run, started(run))
    over = after(run, completed(run))

    decision = decide(over, event, a_moment())

    assert [notice.status for notice in of(AnnounceOutcome, decision)] == [RunStatus.COMPLETED]


def test_rule_16_a_key_whose_earlier_run_is_being_removed_is_asked_again_later() -> None:
    run = running(run_id="r")
    expiring = replace(after(run, completed(run)), expiring=True)
    event = requested("r")

    decision = decide(expiring, event, a_moment())

    assert decision.run == expiring
    assert [timer.event for timer in of(ArmTimer, decision)] == [event]


def test_rule_16_what_speaks_for_an_earlier_incarnation_is_refused() -> None:
    run = running(run_id="r")
    stranger = replace(completed(run), incarnation="earlier")

    decision = decide(run, stranger, a_moment())

    assert decision.refused
    assert decision.run == run
    assert [notice.notice for notice in of(NotifyWorker, decision)] == [WorkerNotice.FENCED]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (running, CancelRequested),
        (running, PauseRequested),
        (sleeping, WakeRequested),
        (sleeping, PauseRequested),
        (sleeping, CancelRequested),
    ],
)
def test_rule_17_what_a_client_sends_again_counts_once(make: Callable[[], RunState], kind: type) -> None:
    run = make()
    event = client_event(kind, run)
    once = after(run, event)
    assert once != run

    assert decide(once, event, a_moment()).run == once


def test_rule_17_a_signal_sent_again_counts_once_even_after_it_was_consumed() -> None:
    run = running()
    event = signal(run)
    once = after(run, event)
    taken = appended(once, entry(once, kind=EntryKind.SIGNAL_RECEIVED, source=event.id, name="approved"))
    consumed = after(once, taken)
    assert consumed.inbox == ()

    assert decide(consumed, event, a_moment()).run == consumed


def test_a_signal_wakes_the_run_that_waits_for_it() -> None:
    run = running()
    waits = (Wait(kind=WaitKind.SIGNAL, operation="signal:approved:0#1", name="approved"),)
    waiting = after(run, suspended(run, waits=waits))

    [order] = of(ExecuteRun, decide(waiting, signal(run), a_moment()))

    assert [item.id for item in order.inbox] == ["signal-1"]


def test_a_signal_reaches_the_holder_at_once() -> None:
    run = running()

    [notice] = of(NotifyWorker, decide(run, signal(run), a_moment()))

    assert (notice.worker, notice.notice) == ("w1", WorkerNotice.ARRIVED)


def test_a_signal_that_arrives_while_the_order_waits_reaches_the_holder_when_it_starts() -> None:
    run = a_run()
    run = after(run, signal(run))

    [notice] = of(NotifyWorker, decide(run, started(run), a_moment()))

    assert [item.id for item in notice.items] == ["signal-1"]


def test_a_signal_for_a_full_inbox_is_parked_and_does_not_count() -> None:
    run = running()
    item = InboxItem(id="x", kind=InboxKind.SIGNAL, name="n", at=T0, epoch=1)
    full = replace(run, inbox=(item,) * INBOX_ITEMS_MAX)

    decision = decide(full, signal(run), a_moment())

    assert decision.run == full
    assert decision.parked is not None
    assert run.run_id in decision.parked
    assert decide(run, signal(run), a_moment()).parked is None


def with_pending(run: RunState, kind: EntryKind, source: str) -> RunState:
    return after(run, appended(run, entry(run, kind=kind, source=source, payload=None)))


def test_rule_18_the_end_of_a_task_elsewhere_is_matched_by_its_id_whatever_the_epoch() -> None:
    run = with_pending(running(), EntryKind.TASK_SCHEDULED, "task-1")
    waits = (Wait(kind=WaitKind.TASK, operation="task:render:0#1", name="task-1"),)
    waiting = after(run, suspended(run, waits=waits))
    finished = TaskFinished(
        id="f", run_id=run.run_id, at=T0, incarnation=run.incarnation, task_id="task-1", worker="gpu-1"
    )

    assert len(of(ExecuteRun, decide(waiting, finished, a_moment()))) == 1
    stranger = decide(waiting, replace(finished, task_id="task-of-another-run"), a_moment())
    assert stranger.run == waiting
    assert stranger.refused


def test_rule_18_the_end_of_a_child_counts_once() -> None:
    run = with_pending(running(), EntryKind.CHILD_STARTED, "child-1")
    ended = ChildFinished(id="f", run_id=run.run_id, at=T0, incarnation=run.incarnation, child_id="child-1")
    once = after(run, ended)
    taken = after(once, appended(once, entry(once, kind=EntryKind.CHILD_COMPLETED, source="child-1")))
    assert (taken.inbox, taken.pending) == ((), ())

    assert decide(once, ended, a_moment()).run == once
    assert decide(taken, ended, a_moment()).run == taken


def test_the_end_of_a_child_is_said_to_its_parent_and_said_again() -> None:
    parent = Parent(run_id="parent", incarnation="inc", operation="child:x:0#1")
    run = running(parent=parent)
    event = completed(run)
    once = decide(run, event, a_moment())
    again = decide(once.run, event, a_moment())

    for decision in (once, again):
        [word] = [command.event for command in of(SendEvent, decision)]
        assert isinstance(word, ChildFinished)
        assert (word.run_id, word.child_id) == ("parent", run.run_id)


def test_a_run_that_never_began_is_cancelled_at_once() -> None:
    for run in (a_run(), scheduled_run()):
        decision = decide(run, client_event(CancelRequested, run), a_moment())
        assert decision.run is not None
        assert decision.run.status is RunStatus.CANCELLED
        assert len(of(AnnounceOutcome, decision)) == 1


def test_a_run_that_began_sees_its_cancellation() -> None:
    held, asleep = running(), sleeping()

    [told] = of(NotifyWorker, decide(held, client_event(CancelRequested, held), a_moment()))
    [order] = of(ExecuteRun, decide(asleep, client_event(CancelRequested, asleep), a_moment()))

    assert told.notice is WorkerNotice.CANCEL
    assert order.cancel_requested == told.source == "CancelRequested-1"


def test_a_cancellation_that_was_journaled_is_not_delivered_again() -> None:
    run = running()
    run = after(run, client_event(CancelRequested, run))
    entered = entry(run, kind=EntryKind.CANCEL_REQUESTED, source=run.cancel_requested, payload=None)

    assert after(run, appended(run, entered)).cancel_requested is None


def test_a_worker_learns_of_a_cancellation_that_came_while_its_order_waited() -> None:
    run = running()
    queued = after(run, appended(run))
    queued = after(queued, suspended(queued, ready=True))
    asked = after(queued, client_event(CancelRequested, queued))
    assert asked.status is RunStatus.QUEUED

    notices = of(NotifyWorker, decide(asked, started(asked), a_moment()))

    assert [notice.notice for notice in notices] == [WorkerNotice.CANCEL]


def test_pausing_a_held_run_asks_its_holder_and_takes_effect_when_it_gives_it_back() -> None:
    run = running()
    decision = decide(run, client_event(PauseRequested, run), a_moment())
    assert decision.run is not None
    assert [notice.notice for notice in of(NotifyWorker, decision)] == [WorkerNotice.PAUSE]

    paused = after(decision.run, suspended(run, ready=True))

    assert paused.status is RunStatus.PAUSED


def test_a_paused_run_is_not_started_by_the_order_that_was_on_its_way() -> None:
    run = a_run()
    paused = after(run, client_event(PauseRequested, run))

    assert decide(paused, started(run), a_moment()).refused


def test_a_paused_run_does_not_wake_and_is_not_looked_at() -> None:
    asleep = sleeping()
    paused = after(asleep, client_event(PauseRequested, asleep))

    assert paused.due_at is None
    assert paused.wake_at is not None


def test_resuming_goes_on_where_pausing_stopped() -> None:
    asleep = sleeping()
    paused = after(asleep, client_event(PauseRequested, asleep))
    assert len(of(ExecuteRun, decide(paused, client_event(ResumeRequested, paused), a_moment()))) == 1

    scheduled = scheduled_run()
    paused = after(scheduled, client_event(PauseRequested, scheduled))
    resumed = after(paused, client_event(ResumeRequested, paused))
    assert (resumed.status, resumed.due_at) == (RunStatus.SCHEDULED, T0 + timedelta(hours=1))


def test_waking_tells_the_worker_that_the_nearest_timer_counts_as_due_and_survives_a_loss() -> None:
    asleep = sleeping()
    woken = decide(asleep, client_event(WakeRequested, asleep), a_moment())
    assert woken.run is not None
    assert of(ExecuteRun, woken)[0].woken

    [again] = of(ExecuteRun, decide(woken.run, orphaned(woken.run), a_moment()))
    assert again.woken


def test_retrying_a_failed_run_forgives_what_ended_it() -> None:
    run = running()
    worked = after(run, appended(run))
    over = after(worked, failed(worked, operations=("task:pay:0#1",)))

    decision = decide(over, client_event(RetryRequested, over), a_moment())

    [order] = of(ExecuteRun, decision)
    assert order.forgiven == ("task:pay:0#1",)
    assert decision.run is not None
    assert (decision.run.failure, decision.run.expires_at, decision.run.recoveries) == (None, None, 0)
    reopened = after(decision.run, started(decision.run))
    voided = entry(reopened, kind=EntryKind.RETRIED, operation="task:pay:0#1", payload=None)
    assert after(reopened, appended(reopened, voided)).forgiven == ()


def test_a_completed_run_cannot_be_retried() -> None:
    run = running()
    over = after(run, completed(run))

    assert decide(over, client_event(RetryRequested, over), a_moment()) == Decision(over)


def test_a_run_that_takes_too_long_is_failed_and_its_holder_is_told() -> None:
    until = T0 + timedelta(minutes=5)
    run = running(timeout_at=until)
    assert run.due_at == until
    fired = TimerFired(id="t", run_id=run.run_id, at=until, incarnation=run.incarnation, pair=run.pair, due_at=until)

    decision = decide(run, fired, a_moment(seconds=300))

    assert decision.run is not None
    assert decision.run.failure is not None
    assert decision.run.failure.type == "aiki.errors.RunTimeoutError"
    assert [notice.notice for notice in of(NotifyWorker, decision)] == [WorkerNotice.FENCED]


def test_a_finished_run_is_kept_as_long_as_it_says_or_as_is_usual() -> None:
    usual, own = running(), running(retention=60.0)

    assert after(usual, completed(usual)).expires_at == T0 + timedelta(days=30)
    assert after(own, completed(own)).expires_at == T0 + timedelta(seconds=60)
