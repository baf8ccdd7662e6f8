"""Rules 1 to 4 of the design: how a run gets to one worker, and only one, whatever is said twice or lost."""

from aiki.engine.commands import (
    Command,
    ExecuteRun,
    NotifyWorker,
    ParkDeadLetter,
    SendEvent,
    WorkerNotice,
)
from aiki.engine.decide import Decision, decide
from aiki.engine.events import DispatchDoubted, Event, WakeRequested
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.testing.builders import (
    T0,
    a_moment,
    a_run,
    after,
    appended,
    completed,
    entry,
    orphaned,
    requested,
    running,
    sleeping,
    started,
    suspended,
)


def run_of(decision: Decision) -> RunState:
    assert decision.run is not None
    return decision.run


def orders(decision: Decision) -> list[ExecuteRun]:
    return [command for command in decision.commands if isinstance(command, ExecuteRun)]


def fenced(commands: tuple[Command, ...]) -> list[str]:
    return [
        command.worker
        for command in commands
        if isinstance(command, NotifyWorker) and command.notice is WorkerNotice.FENCED
    ]


def markers(decision: Decision) -> list[DispatchDoubted]:
    events = [command.event for command in decision.commands if isinstance(command, SendEvent)]
    return [event for event in events if isinstance(event, DispatchDoubted)]


def test_a_request_makes_a_run_and_sends_it_to_its_queue() -> None:
    event = requested()

    decision = decide(None, event, a_moment(token="secret"))

    run = run_of(decision)
    assert (run.status, run.pair, run.cause) == (RunStatus.QUEUED, Pair(1, "secret"), event.id)
    [order] = orders(decision)
    assert (order.queue, order.pair, order.input) == ("greet@1.0.0", Pair(1, "secret"), event.input)


def test_rule_1_every_order_to_execute_has_a_pair_of_its_own() -> None:
    run = a_run()

    decision = decide(run, orphaned(run), a_moment(token="fresh"))

    assert orders(decision)[0].pair == run_of(decision).pair == Pair(2, "fresh")


def test_rule_1_the_first_worker_that_starts_a_dispatch_is_bound_to_it() -> None:
    run = a_run()
    held = after(run, started(run, worker="w1"))

    second = decide(held, started(run, worker="w2"), a_moment())

    assert second.refused
    assert run_of(second).holder == "w1"
    assert fenced(second.commands) == ["w2"]


def test_rule_1_the_holder_may_say_twice_that_it_started() -> None:
    run = a_run()
    held = after(run, started(run))

    again = decide(held, started(run), a_moment())

    assert not again.refused
    assert again.run == held


def test_rule_1_a_marker_dispatches_under_a_new_pair_and_never_under_the_old_one() -> None:
    event = requested()
    run = after(None, event)
    [marker] = markers(decide(run, event, a_moment()))

    decision = decide(run, marker, a_moment(token="other"))

    assert orders(decision)[0].pair == Pair(2, "other")
    assert orders(decision)[0].recovered


def test_rule_2_a_cause_that_is_delivered_again_sends_a_marker_and_no_order() -> None:
    event = requested()
    run = after(None, event)

    again = decide(run, event, a_moment())

    assert again.run == run
    assert orders(again) == []
    assert [marker.pair for marker in markers(again)] == [run.pair]


def test_rule_2_a_marker_does_nothing_when_the_dispatch_was_heard_of_meanwhile() -> None:
    event = requested()
    run = after(None, event)
    [marker] = markers(decide(run, event, a_moment()))
    held = after(run, started(run))

    decision = decide(held, marker, a_moment())

    assert decision.run == held
    assert decision.commands == ()


def test_rule_2_no_marker_is_needed_once_a_worker_has_started() -> None:
    event = requested()
    held = after(None, event)
    held = after(held, started(held))

    assert markers(decide(held, event, a_moment())) == []


def test_rule_2_holds_for_every_kind_of_cause() -> None:
    asleep = sleeping()
    held = running()
    queued = a_run()
    causes: list[tuple[RunState, Event]] = [
        (queued, orphaned(queued)),
        (held, suspended(held, ready=True)),
        (held, appended(held, entry(held, seq=8))),
        (asleep, wake(asleep)),
    ]
    for run, event in causes:
        dispatched = after(run, event)
        assert dispatched.cause == event.id

        again = decide(dispatched, event, a_moment())

        assert again.run == dispatched
        assert orders(again) == []
        assert len(markers(again)) == 1


def wake(run: RunState) -> WakeRequested:
    return WakeRequested(id="wake", run_id=run.run_id, at=T0)


def test_rule_3_whoever_speaks_for_another_dispatch_is_told_that_it_is_fenced() -> None:
    old = running()
    run = after(old, orphaned(old))

    for event in (started(old), appended(old), suspended(old, ready=True), completed(old)):
        decision = decide(run, event, a_moment())
        assert decision.refused
        assert decision.run == run
        assert fenced(decision.commands) == [event.worker]


def test_rule_3_the_lost_holder_is_told_when_its_run_is_dispatched_again() -> None:
    run = running()

    assert fenced(decide(run, orphaned(run), a_moment()).commands) == ["w1"]


def test_rule_3_a_worker_that_speaks_for_a_run_that_is_gone_is_told_so() -> None:
    decision = decide(None, completed(running()), a_moment())

    assert decision.run is None
    assert decision.refused
    assert fenced(decision.commands) == ["w1"]


def lose(run: RunState, *, start: bool = True, work: bool = False) -> RunState:
    if start:
        run = after(run, started(run))
    if work:
        run = after(run, appended(run))
    return after(run, orphaned(run))


def test_rule_4_a_dispatch_that_nobody_started_does_not_count_against_the_run() -> None:
    run = a_run()
    for _ in range(10):
        run = lose(run, start=False)

    assert run.recoveries == 0
    assert run.status is RunStatus.QUEUED


def test_rule_4_a_dispatch_that_journaled_something_clears_the_run() -> None:
    run = lose(lose(a_run()))
    assert run.recoveries == 2

    assert lose(run, work=True).recoveries == 0


def test_rule_4_handing_back_says_nothing_against_the_run() -> None:
    run = running()
    for _ in range(10):
        run = after(run, orphaned(run, handed_back=True))
        run = after(run, started(run))

    assert run.recoveries == 0


def test_rule_4_a_dispatch_that_journaled_something_clears_the_run_though_it_is_handed_back() -> None:
    run = lose(lose(a_run()))
    run = after(run, started(run))
    assert run.recoveries == 2
    run = after(run, appended(run))

    assert after(run, orphaned(run, handed_back=True)).recoveries == 0


def test_rule_4_a_suspect_executes_alone_before_it_is_parked() -> None:
    run = a_run(recoveries_max=2)
    for _ in range(2):
        run = lose(run)
        assert not run.alone

    suspect = lose(run)
    assert suspect.alone
    assert suspect.status is RunStatus.QUEUED

    held = after(suspect, started(suspect))
    decision = decide(held, orphaned(held), a_moment())
    assert run_of(decision).status is RunStatus.DEAD_LETTERED
    [letter] = [command.letter for command in decision.commands if isinstance(command, ParkDeadLetter)]
    assert letter.run_id == run.run_id
    assert letter.body == run.input
    assert "4 workers" in letter.detail


def test_rule_4_a_neighbour_of_the_culprit_that_survives_alone_goes_on() -> None:
    run = a_run(recoveries_max=1)
    suspect = lose(lose(run))
    assert suspect.alone

    suspect = after(suspect, started(suspect))
    worked = after(suspect, appended(suspect))
    lost_later = after(worked, orphaned(worked))

    assert lost_later.recoveries == 0
    assert not lost_later.alone


def test_rule_4_a_suspect_whose_command_was_lost_before_it_began_gets_its_turn_alone_again() -> None:
    suspect = lose(lose(a_run(recoveries_max=1)))

    again = lose(suspect, start=False)

    assert again.alone
    assert again.status is RunStatus.QUEUED


def test_an_order_after_a_loss_says_so_and_the_first_one_does_not() -> None:
    event = requested()
    [first] = orders(decide(None, event, a_moment()))
    run = after(None, event)
    [second] = orders(decide(run, orphaned(run), a_moment()))

    assert (first.recovered, second.recovered) == (False, True)


def test_logical_time_starts_anew_while_nothing_was_recorded_and_stays_once_something_was() -> None:
    run = running()
    [untouched] = orders(decide(run, orphaned(run), a_moment()))
    worked = after(run, appended(run))
    [touched] = orders(decide(worked, orphaned(worked), a_moment()))

    assert untouched.started_at is None
    assert touched.started_at == run.started_at is not None
