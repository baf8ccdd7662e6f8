"""Rules 7, 8 and 10 of the design: what counts of that which a holder says, and what is said again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiki.engine.commands import AnnounceOutcome, AnnounceProgress, ArmTimer, ExecuteRun, ExecuteTask, NotifyWorker
from aiki.engine.decide import decide
from aiki.engine.events import CancelRequested, LeaseRenewed, SignalSent, TaskScheduled, TimerFired
from aiki.engine.journal import EntryKind, Wait, WaitKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.testing.builders import (
    T0,
    a_moment,
    after,
    appended,
    completed,
    entry,
    failed,
    running,
    suspended,
)


def signal(run_id: str, name: str = "approved", number: int = 1) -> SignalSent:
    return SignalSent(id=f"signal-{number}", run_id=run_id, at=T0, name=name, payload=dump_payload(True))


def waiting_for(kind: WaitKind, name: str | None = None, **changes: Any) -> tuple[Wait, ...]:
    return (replace(Wait(kind=kind, operation=f"{kind}:x#1", name=name), **changes),)


def test_rule_7_entries_follow_on_each_other() -> None:
    run = running()

    decision = decide(run, appended(run, entry(run), entry(run, seq=2)), a_moment())

    assert decision.run == replace(run, last_seq=2)
    assert [kept.seq for kept in decision.journal] == [1, 2]


def test_rule_7_a_gap_fences_the_pair() -> None:
    run = running()

    decision = decide(run, appended(run, entry(run, seq=2)), a_moment())

    assert decision.journal == ()
    assert decision.run is not None
    assert decision.run.pair.epoch == run.pair.epoch + 1
    assert [type(command) for command in decision.commands] == [NotifyWorker, ExecuteRun]


def test_rule_7_an_end_that_knows_of_more_entries_than_arrived_fences_the_pair() -> None:
    run = running()
    ahead = replace(run, last_seq=3)

    for event in (completed(ahead), failed(ahead), suspended(ahead, ready=True)):
        decision = decide(run, event, a_moment())
        assert decision.run is not None
        assert decision.run.status is RunStatus.QUEUED
        assert decision.run.pair.epoch == run.pair.epoch + 1


def test_rule_7_an_entry_of_another_epoch_fences_the_pair() -> None:
    run = running()

    decision = decide(run, appended(run, entry(run, epoch=run.pair.epoch + 5)), a_moment())

    assert decision.journal == ()
    assert decision.run is not None
    assert decision.run.pair != run.pair


def test_rule_7_the_same_entries_again_are_recognised() -> None:
    run = running()
    event = appended(run)
    once = after(run, event)

    again = decide(once, event, a_moment())

    assert again.run == once
    assert again.journal == ()
    assert not again.refused


def test_rule_7_a_message_that_overlaps_what_is_known_adds_the_rest() -> None:
    run = running()
    first, second = entry(run), entry(run, seq=2)
    once = after(run, appended(run, first))

    decision = decide(once, appended(run, first, second), a_moment())

    assert decision.journal == (second,)


def test_an_ordinary_entry_is_no_reason_to_write_the_run() -> None:
    run = running()

    decision = decide(run, appended(run), a_moment())

    assert decision.run == replace(run, last_seq=1)


def test_rule_8_the_end_of_a_run_is_announced_again_when_it_is_said_again() -> None:
    run = running()
    event = completed(run)
    once = decide(run, event, a_moment())

    again = decide(once.run, event, a_moment())

    assert again.run == once.run
    assert again.commands == once.commands
    assert [type(command) for command in again.commands] == [AnnounceOutcome]


def test_rule_8_a_retry_is_armed_again_when_the_suspension_is_said_again() -> None:
    run = running()
    due_at = T0 + timedelta(seconds=1)
    event = suspended(run, wake_at=due_at, waits=waiting_for(WaitKind.RETRY, due_at=due_at, delay_ms=1000))
    once = decide(run, event, a_moment())
    assert [command.delay_ms for command in once.commands if isinstance(command, ArmTimer)] == [1000]

    again = decide(once.run, event, a_moment())

    assert [command.delay_ms for command in again.commands if isinstance(command, ArmTimer)] == [1000]


def test_rule_8_a_task_for_another_queue_is_sent_again_when_it_is_said_again() -> None:
    run = running()
    event = scheduled(run)
    once = decide(run, event, a_moment())

    again = decide(once.run, event, a_moment())

    assert once.run is not None
    assert once.run.pending == ("task-1",)
    for decision in (once, again):
        assert [command.task_id for command in decision.commands if isinstance(command, ExecuteTask)] == ["task-1"]
    assert again.run == once.run


def scheduled(run: RunState) -> TaskScheduled:
    return TaskScheduled(
        id="scheduled-1",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=run.pair,
        worker="w1",
        entry=entry(run, kind=EntryKind.TASK_SCHEDULED, operation="task:render:1#1", source="task-1", payload=None),
        task_id="task-1",
        queue="gpu",
        task="render",
        operation="task:render:1#1",
        attempt=1,
        input=dump_payload({}),
        idempotency_key="key",
    )


def test_rule_10_a_run_does_not_sleep_when_what_it_waits_for_is_in_its_inbox() -> None:
    run = after(running(), signal("x"))

    decision = decide(run, suspended(run, waits=waiting_for(WaitKind.SIGNAL, "approved")), a_moment())

    [order] = [command for command in decision.commands if isinstance(command, ExecuteRun)]
    assert [item.name for item in order.inbox] == ["approved"]


def test_rule_10_a_signal_that_nobody_waits_for_does_not_keep_a_run_awake() -> None:
    run = after(running(), signal("x", "other"))

    decision = decide(run, suspended(run, waits=waiting_for(WaitKind.SIGNAL, "approved")), a_moment())

    assert decision.run is not None
    assert decision.run.status is RunStatus.AWAITING_SIGNAL


def test_rule_10_a_run_does_not_sleep_when_it_is_due() -> None:
    run = running()

    decision = decide(run, suspended(run, wake_at=T0 + timedelta(seconds=5)), a_moment(seconds=5))

    assert decision.run is not None
    assert decision.run.status is RunStatus.QUEUED


def test_rule_10_a_run_does_not_sleep_when_it_is_to_be_cancelled() -> None:
    run = running()
    asked = after(run, CancelRequested(id="cancel", run_id=run.run_id, at=T0))

    decision = decide(asked, suspended(run, wake_at=T0 + timedelta(seconds=60)), a_moment())

    [order] = [command for command in decision.commands if isinstance(command, ExecuteRun)]
    assert order.cancel_requested == "cancel"


def test_rule_10_a_wake_up_carries_the_time_at_which_it_was_due() -> None:
    run = running()
    due_at = T0 + timedelta(seconds=60)
    asleep = after(run, suspended(run, wake_at=due_at))
    fired = TimerFired(
        id="timer", run_id=run.run_id, at=due_at, incarnation=run.incarnation, pair=run.pair, due_at=due_at
    )

    # The clock of this orchestrator is behind the one that fired the timer.
    [order] = [c for c in decide(asleep, fired, a_moment(seconds=59)).commands if isinstance(c, ExecuteRun)]

    assert order.now == due_at


def test_rule_9_a_timer_counts_only_for_its_pair_and_its_moment() -> None:
    run = running()
    due_at = T0 + timedelta(seconds=60)
    asleep = after(run, suspended(run, wake_at=due_at))
    fired = TimerFired(
        id="timer", run_id=run.run_id, at=due_at, incarnation=run.incarnation, pair=run.pair, due_at=due_at
    )
    woken = after(asleep, fired)

    assert decide(asleep, replace(fired, id="t2", due_at=T0), a_moment(seconds=60)).run == asleep
    assert decide(woken, replace(fired, id="t3"), a_moment(seconds=61)).run == woken


def test_a_retry_that_waits_beside_a_nearer_timer_is_left_to_the_heap() -> None:
    run = running()
    due_at = T0 + timedelta(seconds=1)
    waits = (
        *waiting_for(WaitKind.RETRY, due_at=due_at, delay_ms=1000),
        *waiting_for(WaitKind.TIMER, due_at=T0 + timedelta(seconds=0.5)),
    )

    decision = decide(run, suspended(run, wake_at=T0 + timedelta(seconds=0.5), waits=waits), a_moment())

    assert not [command for command in decision.commands if isinstance(command, ArmTimer)]


def test_what_a_workflow_says_of_itself_is_kept_and_announced() -> None:
    run = running()
    note = dump_payload("waiting for the bank")

    decision = decide(run, appended(run, entry(run, kind=EntryKind.STATUS_SET, payload=note)), a_moment())

    assert decision.run is not None
    assert decision.run.note == note
    assert [command.note for command in decision.commands if isinstance(command, AnnounceProgress)] == [note]


def lease_of(run: RunState, *, begun: datetime = T0, minutes: float = 5) -> LeaseRenewed:
    """What the holder says, whose clock shows *begun*."""
    until = begun + timedelta(minutes=minutes)
    facts: dict[str, Any] = {"run_id": run.run_id, "incarnation": run.incarnation, "pair": run.pair, "worker": "w1"}
    return LeaseRenewed(id="lease", at=begun, until=until, **facts)


def end_of_lease(run: RunState) -> TimerFired:
    """What the timer says at the end of the lease that is stored."""
    assert run.lease_until is not None
    facts: dict[str, Any] = {"run_id": run.run_id, "incarnation": run.incarnation, "pair": run.pair}
    return TimerFired(id="timer", at=run.lease_until, due_at=run.lease_until, **facts)


def test_a_lease_that_ends_takes_the_run_from_its_holder() -> None:
    run = running()
    leased = after(run, lease_of(run, minutes=15))
    assert leased.due_at == T0 + timedelta(minutes=15)

    decision = decide(leased, end_of_lease(leased), a_moment(seconds=900))

    assert decision.run is not None
    assert (decision.run.status, decision.run.pair.epoch) == (RunStatus.QUEUED, 2)


def test_a_renewed_lease_outlives_the_moment_of_the_old_one() -> None:
    run = running()
    leased = after(run, lease_of(run))
    renewed = after(leased, lease_of(run), seconds=100)

    assert decide(renewed, end_of_lease(leased), a_moment(seconds=300)).run == renewed


@pytest.mark.parametrize("apart", [timedelta(days=-1), timedelta(0), timedelta(days=1)])
def test_a_lease_begins_now_whatever_the_clock_of_the_holder_shows(apart: timedelta) -> None:
    run = running()

    leased = after(run, lease_of(run, begun=T0 + apart), seconds=10)

    assert leased.lease_until == T0 + timedelta(minutes=5, seconds=10)


def test_a_lease_is_no_longer_than_anybody_can_mean() -> None:
    run = running()
    end_of_time = datetime(9999, 12, 31, tzinfo=UTC)

    leased = after(run, replace(lease_of(run), until=end_of_time))
    never = after(run, replace(lease_of(run), at=end_of_time))

    assert leased.lease_until == T0 + timedelta(days=30)
    assert never.lease_until == T0
