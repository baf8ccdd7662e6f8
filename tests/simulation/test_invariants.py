"""What the watch of a simulation takes for granted when it judges."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.dispatching import execute_run
from aiki.engine.events import ResumeRequested
from aiki.engine.journal import Failure
from aiki.engine.payload import NULL
from aiki.ports.store import RunChange
from aiki.testing.builders import T0, after, appended, completed, running
from aiki.testing.simulation.invariants import Watch, followed
from aiki.testing.simulation.loop import SimulationLoop
from aiki.testing.simulation.store import done_at_once
from aiki.testing.simulation.workload import Job, approval
from aiki.testing.simulation.world import START, Order, World


def an_order() -> ExecuteRun:
    return execute_run(replace(running(), base_seq=1), now=T0, recovering=False)


def arrived(order: ExecuteRun, *, at: float) -> Order:
    return Order(order.pair, order.base_seq, order.incarnation, at)


def test_a_worker_follows_what_it_holds_until_it_has_looked_at_what_arrived() -> None:
    earlier = an_order()
    later = replace(earlier, pair=replace(earlier.pair, epoch=earlier.pair.epoch + 1), base_seq=3)

    at_first, in_the_end = followed(arrived(later, at=9.0), earlier), followed(arrived(later, at=9.0), later)

    assert at_first == replace(arrived(earlier, at=0.0), at=9.0)  # It may know since then that it lost its run.
    assert in_the_end == arrived(later, at=9.0)


def test_a_worker_that_holds_nothing_any_more_followed_what_arrived_last() -> None:
    order = arrived(an_order(), at=9.0)

    assert followed(order, None) == order
    assert followed(None, None) is None


def test_a_run_is_over_as_soon_as_somebody_whose_clock_is_ahead_has_removed_it() -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    run = running(retention=(START - T0).total_seconds() + 60)
    ended = after(run, completed(run))
    assert ended.expires_at is not None
    for change in (RunChange.between(None, run), RunChange.between(replace(run, revision=1), ended)):
        assert not done_at_once(world.store.commit([change]))
    was_over = watch.is_over(run.run_id)

    done_at_once(world.store.expire(now=ended.expires_at + timedelta(seconds=1), limit=10))

    assert not was_over
    assert watch.is_over(run.run_id)
    loop.close()


def test_words_change_places_only_if_the_broker_lost_its_data_between_them() -> None:
    job = Job(0, approval, (), fits=lambda result: bool(result == 112), says=(("send", 5), ("send", 6)))
    whole = [result for result in (112, 110, 130, 132) if job.is_right(result, in_vain=False)]

    job.is_parted = True

    assert whole == [112]
    assert [result for result in (112, 110, 130, 132) if job.is_right(result, in_vain=False)] == [112, 130]


@pytest.mark.parametrize(
    ("wiped_at", "moved_on", "is_wrong"), [(0.0, False, True), (6.0, False, False), (6.0, True, True)]
)
def test_a_word_that_is_not_stored_must_have_come_before_the_late_write_of_a_request_that_was_lost(
    wiped_at: float, moved_on: bool, is_wrong: bool
) -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    world.wiped_at = wiped_at
    watch = Watch(world, [])
    run = replace(running(), revision=1)
    watch.taken_at[run.run_id] = 5.0
    watch._ledger.note(RunChange(None, run))
    if moved_on:
        watch._ledger.note(RunChange(run, replace(run, revision=2, recoveries=1)))

    world.on_settled([(ResumeRequested(id="resume", run_id=run.run_id, at=T0),)])

    assert bool(watch.violations) is is_wrong
    loop.close()


def test_a_letter_is_owed_unless_the_broker_lost_it_and_its_run_is_forgotten() -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    ledger = watch._ledger
    ledger.buried["run-1"] = 5.0

    def is_owed(*, wiped_at: float, made_again: bool) -> bool:
        world.wiped_at = wiped_at
        ledger.made_again = {"run-1"} if made_again else set()
        return any("there is no letter" in what for what in watch.left_over())

    assert is_owed(wiped_at=0.0, made_again=False)
    assert is_owed(wiped_at=6.0, made_again=False)
    assert is_owed(wiped_at=4.0, made_again=True)
    assert not is_owed(wiped_at=6.0, made_again=True)
    loop.close()


@pytest.mark.parametrize(
    ("is_mixed", "other", "is_wrong"),
    [
        *[(True, "at", False), (False, "at", True)],
        *[(True, other, True) for other in ("operation", "payload", "failure", "nothing is stored")],
    ],
)
def test_an_entry_may_be_of_another_life_of_its_run_only_where_both_learnt_the_same(
    is_mixed: bool, other: str, is_wrong: bool
) -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    run = running()
    told = appended(run)
    first = told.entries[0]
    stored = {
        "at": replace(first, at=first.at - timedelta(seconds=30)),
        "operation": replace(first, operation="?"),
        "payload": replace(first, payload=NULL),
        "failure": replace(first, failure=Failure(type="ValueError", message="no")),
    }
    watch._ledger.begin_anew(run, [stored[other]] if other in stored else [])
    watch._mixed.update([run.run_id] if is_mixed else [])

    world.on_settled([(told,)])

    assert bool(watch.violations) is is_wrong
    loop.close()


def test_a_run_that_is_removed_before_its_time_is_missed() -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    run = replace(running(retention=(START - T0).total_seconds() + 3600), revision=1)
    ended = after(run, completed(run))
    watch._ledger.note(RunChange(None, run))
    watch._ledger.note(RunChange.between(run, ended))

    watch.check_journals()

    assert [what for what in watch.violations if "gone before" in what]
    loop.close()


def test_what_is_known_of_a_mixed_up_run_says_nothing_of_the_next_one_under_its_key() -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    first = replace(running(), revision=1)
    watch._ledger.note(RunChange(None, first))
    watch._mixed.add(first.run_id)

    watch._on_commit([RunChange(None, replace(first, incarnation="another"))], stale=())

    assert first.run_id not in watch._mixed
    loop.close()


@pytest.mark.parametrize("is_of_the_same_request", [True, False])
def test_an_end_counts_for_whatever_the_same_request_makes_and_for_nothing_that_another_one_makes(
    is_of_the_same_request: bool,
) -> None:
    loop = SimulationLoop()
    world = World(loop, Random(1), partitions=1)
    watch = Watch(world, [])
    first = running(retention=1.0)
    ended = after(first, completed(first))
    assert ended.expires_at is not None
    had_ended = []
    for change in (RunChange.between(None, first), RunChange.between(replace(first, revision=1), ended)):
        assert not done_at_once(world.store.commit([change]))
        had_ended.append(watch.has_ever_ended(first.run_id))
    done_at_once(world.store.expire(now=ended.expires_at + timedelta(seconds=1), limit=10))

    next_one = first if is_of_the_same_request else replace(first, incarnation="another")
    assert not done_at_once(world.store.commit([RunChange.between(None, next_one)]))

    assert had_ended == [False, True]
    assert watch.has_ever_ended(first.run_id) is is_of_the_same_request
    assert not watch.has_ended(first.run_id)
    loop.close()
