"""Interleavings that once broke a promise: crashes between store and broker, late words, losses that repeat."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from aiki.engine.commands import (
    AnnounceOutcome,
    ExecuteRun,
    ExecuteTask,
    NotifyWorker,
    ParkDeadLetter,
    SendEvent,
    WorkerNotice,
)
from aiki.engine.decide import Decision, decide
from aiki.engine.events import (
    CancelRequested,
    ChildFinished,
    ClientEvent,
    DispatchDoubted,
    LeaseRenewed,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    TaskFinished,
    TaskScheduled,
    TimerFired,
    WakeRequested,
)
from aiki.engine.journal import EntryKind, Wait, WaitKind
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
E = TypeVar("E", bound=ClientEvent)

PARENT = Parent(run_id="parent", incarnation="inc", operation="child:x:0#1")


def of(kind: type[C], decision: Decision) -> list[C]:
    return [command for command in decision.commands if isinstance(command, kind)]


def notices(decision: Decision) -> list[WorkerNotice]:
    return [told.notice for told in of(NotifyWorker, decision)]


def children_ended(decision: Decision) -> list[str]:
    return [sent.event.child_id for sent in of(SendEvent, decision) if isinstance(sent.event, ChildFinished)]


def client(kind: type[E], run: RunState, number: int = 1, **more: Any) -> E:
    return kind(id=f"{kind.__name__}-{number}", run_id=run.run_id, at=T0, **more)


def signal(run: RunState, number: int = 1) -> SignalSent:
    return client(SignalSent, run, number, name="go", payload=dump_payload(number))


def timer(run: RunState, due_at: datetime, **changes: Any) -> TimerFired:
    fired = TimerFired(
        id=f"timer-{due_at}", run_id=run.run_id, at=T0, incarnation=run.incarnation, pair=run.pair, due_at=due_at
    )
    return replace(fired, **changes)


def scheduled(run: RunState, *, announced: bool = False) -> TaskScheduled:
    there = entry(run, kind=EntryKind.TASK_SCHEDULED, operation="task:gpu:0#1", source="task-1", payload=None)
    return TaskScheduled(
        id="scheduled-1",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=run.pair,
        worker=run.holder or "w1",
        entry=None if announced else there,
        task_id="task-1",
        queue="gpu",
        task="gpu",
        operation="task:gpu:0#1",
        attempt=1,
        input=dump_payload(None),
        idempotency_key="key",
    )


def task_finished(run: RunState) -> TaskFinished:
    return TaskFinished(
        id="finished-1", run_id=run.run_id, at=T0, incarnation=run.incarnation, task_id="task-1", worker="gpu-1"
    )


def child_started(run: RunState) -> RunState:
    return after(run, appended(run, entry(run, kind=EntryKind.CHILD_STARTED, source="child-1", payload=None)))


def child_finished(run: RunState) -> ChildFinished:
    return ChildFinished(id="f", run_id=run.run_id, at=T0, incarnation=run.incarnation, child_id="child-1")


def again(run: RunState, event: Any) -> Decision:
    """Apply *event* as an orchestrator did that was killed before it sent anything, and then as its heir does."""
    first = decide(run, event, a_moment())
    assert first.run != run
    second = decide(first.run, event, a_moment())
    assert second.run == first.run
    return second


# -- Rule 8: stored, and not sent --------------------------------------------------------------------------------------


def test_rule_8_a_parent_hears_of_a_child_that_was_cancelled_before_it_began_though_the_first_word_was_lost() -> None:
    run = a_run(parent=PARENT)

    decision = again(run, client(CancelRequested, run))

    assert children_ended(decision) == [run.run_id]
    assert len(of(AnnounceOutcome, decision)) == 1


def test_rule_8_a_parent_hears_of_a_child_that_took_too_long_though_the_first_word_was_lost() -> None:
    until = T0 + timedelta(minutes=5)
    run = running(parent=PARENT, timeout_at=until)

    decision = again(run, timer(run, until))

    assert children_ended(decision) == [run.run_id]
    assert not decision.refused


def suspect(**changes: Any) -> RunState:
    """Make a run that executes alone, and is parked if its worker is lost again."""
    run = running(recoveries_max=0, **changes)
    run = after(run, orphaned(run))
    assert run.alone
    return after(run, started(run))


def test_rule_8_a_run_that_was_stopped_is_parked_and_told_of_though_the_first_word_was_lost() -> None:
    lost = suspect(parent=PARENT)
    until = T0 + timedelta(minutes=5)
    said: dict[str, Any] = {"id": "l", "run_id": lost.run_id, "at": T0, "incarnation": lost.incarnation}
    leased = after(lost, LeaseRenewed(**said, pair=lost.pair, worker="w1", until=until))
    out_of_step = suspect(parent=PARENT)

    for run, event in (
        (lost, orphaned(lost)),
        (leased, timer(leased, until)),
        (out_of_step, appended(out_of_step, entry(out_of_step, seq=7))),
        (out_of_step, completed(replace(out_of_step, last_seq=7))),
    ):
        decision = again(run, event)
        assert decision.run is not None
        assert decision.run.status is RunStatus.DEAD_LETTERED
        assert children_ended(decision) == [run.run_id]
        assert len(of(ParkDeadLetter, decision)) == 1


def test_rule_8_the_holder_hears_of_what_clients_want_though_the_first_word_was_lost() -> None:
    run = running()

    assert notices(again(run, client(CancelRequested, run))) == [WorkerNotice.CANCEL]
    assert notices(again(run, client(PauseRequested, run))) == [WorkerNotice.PAUSE]
    told = of(NotifyWorker, again(run, signal(run)))
    assert [[item.id for item in notice.items] for notice in told] == [["SignalSent-1"]]


def test_rule_8_the_holder_hears_of_what_ended_elsewhere_though_the_first_word_was_lost() -> None:
    parent, sender = child_started(running()), running()
    sender = after(sender, scheduled(sender))

    for run, event, name in (
        (parent, child_finished(parent), "child-1"),
        (sender, task_finished(sender), "task-1"),
    ):
        told = of(NotifyWorker, again(run, event))
        assert [[item.id for item in notice.items] for notice in told] == [[name]]


def test_rule_8_what_was_dealt_with_is_not_said_again() -> None:
    run = running()
    cancel = client(CancelRequested, run)
    asked = after(run, cancel)
    entered = entry(asked, kind=EntryKind.CANCEL_REQUESTED, source=cancel.id, payload=None)
    taken = after(asked, appended(asked, entered))

    assert decide(taken, cancel, a_moment()) == Decision(taken)


def test_rule_8_a_task_for_another_queue_is_sent_though_only_the_dispatch_that_came_with_it_was() -> None:
    run = running()
    event = scheduled(run)
    sent = after(run, event)
    dispatched = after(sent, suspended(sent, ready=True))
    held = after(dispatched, started(dispatched))

    decision = decide(held, event, a_moment())

    assert decision.run == held
    assert [order.task_id for order in of(ExecuteTask, decision)] == ["task-1"]
    assert notices(decision) == [WorkerNotice.FENCED]


def doubted(run: RunState, *, queues_lost: bool) -> DispatchDoubted:
    return DispatchDoubted(
        id="doubt",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=run.pair,
        queues_lost=queues_lost,
    )


def test_what_a_run_waits_for_elsewhere_is_ordered_again_when_the_broker_lost_its_queues() -> None:
    run = running()
    run = after(run, scheduled(run))
    waits = (Wait(kind=WaitKind.TASK, operation="task:gpu:0#1", name="task-1"),)
    waiting = after(run, suspended(run, waits=waits))

    [order] = of(ExecuteRun, decide(waiting, doubted(waiting, queues_lost=True), a_moment()))
    assert order.recovered
    assert decide(waiting, doubted(waiting, queues_lost=False), a_moment()) == Decision(waiting, refused=True)

    paused = after(waiting, client(PauseRequested, waiting))
    paused = after(paused, doubted(paused, queues_lost=True))
    [order] = of(ExecuteRun, decide(paused, client(ResumeRequested, paused), a_moment()))
    assert order.recovered


def test_a_run_that_waits_for_nothing_elsewhere_rests_though_the_broker_lost_its_queues() -> None:
    asleep = sleeping()

    assert decide(asleep, doubted(asleep, queues_lost=True), a_moment()) == Decision(asleep, refused=True)


# -- Rule 6: the journal stored, and the run not -----------------------------------------------------------------------


def half_stored(run: RunState, *events: Any) -> RunState:
    """Load *run* after an orchestrator stored what *events* added to its journal, and was killed before the rest."""
    return replace(run, last_seq=after(run, *events).last_seq)


def test_rule_6_logical_time_starts_with_the_start_whose_entries_were_stored() -> None:
    lost = running()
    run = after(lost, orphaned(lost))
    [order] = of(ExecuteRun, decide(lost, orphaned(lost), a_moment()))
    assert order.started_at is None
    start = replace(started(run), at=T0 + timedelta(seconds=9))
    crashed = half_stored(run, start, appended(after(run, start)))

    assert after(crashed, start).started_at == start.at


# -- A recorded task never runs again ----------------------------------------------------------------------------------


def ended(run: RunState) -> RunState:
    taken = entry(run, kind=EntryKind.TASK_COMPLETED, operation="task:gpu:0#1", source="task-1")
    return after(run, appended(run, taken))


def test_a_task_that_ended_elsewhere_is_not_sent_again_however_late_its_order_is_said_again() -> None:
    run = running()
    event = scheduled(run)
    waiting = after(run, event)
    there = after(waiting, task_finished(waiting))
    recorded = ended(there)

    for state in (there, recorded):
        for said in (event, scheduled(state, announced=True)):
            decision = decide(state, said, a_moment())
            assert of(ExecuteTask, decision) == []
            assert decision.run == state
            assert not decision.refused


def test_what_ended_elsewhere_stays_ended_however_late_its_start_is_said_again() -> None:
    run = running()
    event = scheduled(run)
    recorded = ended(after(run, event))
    late = after(recorded, event)

    assert late.pending == ()
    assert decide(late, task_finished(late), a_moment()).refused


def test_a_start_and_an_end_in_one_message_leave_nothing_pending() -> None:
    run = running()
    start = entry(run, kind=EntryKind.CHILD_STARTED, source="child-1", payload=None)
    end = entry(run, seq=2, kind=EntryKind.CHILD_COMPLETED, source="child-1")

    assert after(run, appended(run, start, end)).pending == ()


# -- Rule 4: what loses its workers is stopped -------------------------------------------------------------------------


def test_rule_4_a_run_that_records_nothing_but_the_time_before_it_kills_its_worker_is_stopped() -> None:
    run = running(recoveries_max=2)
    run = after(run, appended(run), suspended(after(run, appended(run)), ready=True))
    dispatches = 0
    while not run.status.is_final:
        run = after(run, started(run))
        clock = entry(run, kind=EntryKind.CLOCK, operation=None, payload=None)
        run = after(run, appended(run, clock))
        run = after(run, orphaned(run))
        dispatches += 1
        assert dispatches < 10

    assert run.status is RunStatus.DEAD_LETTERED
    assert dispatches == 4


def test_rule_4_what_is_recorded_after_the_time_clears_the_run() -> None:
    run = running(recoveries_max=2)
    run = after(run, appended(run), suspended(after(run, appended(run)), ready=True))
    run = after(run, started(run))
    clock = entry(run, kind=EntryKind.CLOCK, operation=None, payload=None)
    run = after(run, appended(run, clock))
    worked = after(run, appended(run))

    assert after(run, orphaned(run)).recoveries == 1
    assert after(worked, orphaned(worked)).recoveries == 0


def test_rule_7_a_run_whose_record_never_fits_does_not_go_round_for_ever() -> None:
    run = running()
    rounds = 0
    while not run.status.is_final:
        run = after(run, appended(run, entry(run, seq=run.last_seq + 2)))
        run = run if run.status.is_final else after(run, started(run))
        rounds += 1
        assert rounds < 10

    assert run.status is RunStatus.DEAD_LETTERED


def test_rule_4_a_suspect_that_is_paused_and_resumed_still_executes_alone() -> None:
    run = running(recoveries_max=0)
    run = after(run, client(PauseRequested, run))
    paused = after(run, orphaned(run))
    assert paused.status is RunStatus.PAUSED

    for event in (client(ResumeRequested, paused), client(CancelRequested, paused)):
        [order] = of(ExecuteRun, decide(paused, event, a_moment()))
        assert order.alone
        assert order.recovered


def test_a_pause_that_was_asked_for_takes_effect_when_the_record_does_not_fit() -> None:
    run = running()
    run = after(run, client(PauseRequested, run))

    assert after(run, appended(run, entry(run, seq=7))).status is RunStatus.PAUSED


def test_what_an_order_to_a_paused_run_may_have_started_is_announced_again_when_it_is_resumed() -> None:
    run = a_run()
    paused = after(run, client(PauseRequested, run))

    [order] = of(ExecuteRun, decide(paused, client(ResumeRequested, paused), a_moment()))

    assert order.recovered


# -- Rule 3: whoever goes on without its run is told -------------------------------------------------------------------


def test_rule_3_a_holder_that_goes_on_after_its_run_was_ended_is_told_each_time_it_speaks() -> None:
    until = T0 + timedelta(minutes=5)
    run = running(timeout_at=until)
    over = after(run, timer(run, until))

    for event in (appended(over), scheduled(over)):
        decision = decide(over, event, a_moment())
        assert decision.refused
        assert decision.run == over
        assert WorkerNotice.FENCED in notices(decision)
        assert of(ExecuteTask, decision) == []


# -- A retry goes on with what there is --------------------------------------------------------------------------------


def retried(run: RunState) -> RunState:
    return after(run, client(RetryRequested, run))


def test_a_retried_run_hears_of_the_child_that_was_under_way_when_it_failed() -> None:
    run = child_started(running())
    over = after(run, failed(run))
    waits = (Wait(kind=WaitKind.CHILD, operation="child:x:0#1", name="child-1"),)

    early = retried(after(over, child_finished(over)))
    late = retried(over)
    late = after(late, started(late))
    late = after(late, suspended(late, waits=waits))
    woken = decide(late, child_finished(late), a_moment())

    assert [item.id for item in early.inbox] == ["child-1"]
    assert len(of(ExecuteRun, woken)) == 1


def test_a_retried_run_still_has_the_signals_that_it_had_not_asked_for() -> None:
    run = running()
    run = after(run, signal(run))
    over = after(run, failed(run))
    over = after(over, signal(over, 2))

    [order] = of(ExecuteRun, decide(over, client(RetryRequested, over), a_moment()))

    assert [item.id for item in order.inbox] == ["SignalSent-1", "SignalSent-2"]
    assert order.recovered


def test_what_a_completed_run_did_not_ask_for_is_forgotten() -> None:
    run = running()
    run = after(run, signal(run))
    over = after(run, completed(run))

    assert over.inbox == ()
    assert decide(over, signal(over, 2), a_moment()) == Decision(over)


def test_what_a_retry_forgives_stays_forgiven_until_it_is_recorded() -> None:
    run = running(recoveries_max=0)
    run = after(run, appended(run))
    over = after(run, failed(run, operations=("task:pay:0#1",)))
    run = retried(over)
    for _ in range(2):
        run = after(run, started(run))
        run = after(run, orphaned(run))
    assert run.status is RunStatus.DEAD_LETTERED

    [order] = of(ExecuteRun, decide(run, client(RetryRequested, run, 2), a_moment()))

    assert order.forgiven == ("task:pay:0#1",)


def test_a_queued_run_whose_order_was_parked_is_sent_again_under_a_new_pair() -> None:
    run = a_run()

    decision = decide(run, client(RetryRequested, run), a_moment())

    [order] = of(ExecuteRun, decision)
    assert order.pair.epoch == run.pair.epoch + 1
    assert decide(decision.run, client(RetryRequested, run), a_moment()).run == decision.run


# -- Clients -----------------------------------------------------------------------------------------------------------


def test_a_cancellation_asked_for_twice_is_delivered_once() -> None:
    run = running()
    run = after(run, client(CancelRequested, run))

    decision = decide(run, client(CancelRequested, run, 2), a_moment())

    assert [told.source for told in of(NotifyWorker, decision)] == ["CancelRequested-1"]
    assert decision.run is not None
    entered = entry(run, kind=EntryKind.CANCEL_REQUESTED, source="CancelRequested-1", payload=None)
    assert after(decision.run, appended(decision.run, entered)).cancel_requested is None


def test_rule_17_what_came_too_early_does_not_count_when_it_is_said_again_late() -> None:
    held, asleep = running(), sleeping()
    wake, retry = client(WakeRequested, held), client(RetryRequested, held)
    resume = client(ResumeRequested, asleep)
    rested = after(after(held, wake), suspended(held, wake_at=T0 + timedelta(minutes=1)))
    over = after(after(held, retry), failed(held))
    paused = after(after(asleep, resume), client(PauseRequested, asleep))

    for run, event in ((rested, wake), (over, retry), (paused, resume)):
        assert decide(run, event, a_moment()) == Decision(run)


def test_rule_17_a_cancellation_of_a_failed_run_does_not_meet_its_retry() -> None:
    run = running()
    over = after(run, failed(run))
    cancel = client(CancelRequested, over)
    told = after(over, cancel)
    assert told.status is RunStatus.FAILED
    reopened = retried(told)

    assert decide(reopened, cancel, a_moment()).run == reopened


def test_a_wake_up_survives_a_worker_that_stops_before_it_came_to_it() -> None:
    run = sleeping()
    waits = run.waits
    woken = after(run, client(WakeRequested, run))
    held = after(woken, started(woken))

    decision = decide(held, suspended(held, waits=waits, wake_at=T0 + timedelta(minutes=1), ready=True), a_moment())

    assert of(ExecuteRun, decision)[0].woken


# -- What arrives has to fit into a message ----------------------------------------------------------------------------


def test_a_run_takes_the_ends_of_many_children_in_several_orders_that_can_be_sent() -> None:
    large = dump_payload("x" * 600_000)
    names = [f"child-{number}" for number in range(12)]
    run = running()
    begun = [
        entry(run, seq=seq, kind=EntryKind.CHILD_STARTED, source=name, payload=None)
        for seq, name in enumerate(names, start=1)
    ]
    run = after(run, appended(run, *begun))
    for name in names:
        run = after(run, replace(child_finished(run), id=name, child_id=name, payload=large))

    dispatches = 0
    while names:
        waits = tuple(Wait(kind=WaitKind.CHILD, operation=f"child:{name}#1", name=name) for name in names)
        decision = decide(run, suspended(run, waits=waits), a_moment())
        [order] = of(ExecuteRun, decision)
        assert 0 < sum(len(item.payload or "") for item in order.inbox) < 2_000_000
        assert decision.run is not None
        run = after(decision.run, started(decision.run))
        for item in order.inbox:
            run = after(run, appended(run, entry(run, kind=EntryKind.CHILD_COMPLETED, source=item.id)))
            names.remove(item.id)
        dispatches += 1
        assert dispatches <= 12
    assert (run.inbox, run.pending) == ((), ())


def test_what_a_run_waits_for_comes_before_what_nobody_asked_for_yet() -> None:
    large = dump_payload("x" * 600_000)
    run = running()
    begun = [
        entry(run, seq=seq, kind=EntryKind.CHILD_STARTED, source=f"child-{seq}", payload=None) for seq in (1, 2, 3)
    ]
    run = after(run, appended(run, *begun))
    for number in (1, 2, 3):
        name = f"child-{number}"
        run = after(run, replace(child_finished(run), id=name, child_id=name, payload=large))
    waits = (Wait(kind=WaitKind.CHILD, operation="child:x#1", name="child-3"),)

    [order] = of(ExecuteRun, decide(run, suspended(run, waits=waits), a_moment()))

    assert order.inbox[0].id == "child-3"


def test_the_room_for_signals_is_counted_in_bytes() -> None:
    run = running()
    wide = dump_payload("\N{SNOWMAN}" * 300_000)
    for number in (1, 2):
        run = after(run, client(SignalSent, run, number, name="go", payload=wide))

    decision = decide(run, client(SignalSent, run, 3, name="go", payload=wide), a_moment())

    assert decision.run == run
    assert decision.parked is not None


# -- Rule 16: an earlier life ------------------------------------------------------------------------------------------


def test_rule_16_a_request_said_again_while_its_run_is_removed_does_not_make_it_once_more() -> None:
    event = requested()
    run = after(None, event)
    run = after(run, started(run))
    expiring = replace(after(run, completed(run)), expiring=True)

    decision = decide(expiring, event, a_moment())

    assert decision.run == expiring
    assert [type(command) for command in decision.commands] == [AnnounceOutcome]


def test_rule_16_timers_and_markers_of_an_earlier_incarnation_are_refused() -> None:
    later = T0 + timedelta(hours=1)
    delayed = after(None, requested(start_at=later))
    limited = running(timeout_at=later)
    queued = a_run()
    said: dict[str, Any] = {"id": "doubt", "run_id": queued.run_id, "at": T0, "incarnation": "earlier"}

    for run, event in (
        (delayed, timer(delayed, later, incarnation="earlier")),
        (limited, timer(limited, later, incarnation="earlier")),
        (queued, DispatchDoubted(**said, pair=queued.pair)),
    ):
        decision = decide(run, event, a_moment(seconds=3600))
        assert decision.run == run
        assert decision.refused
