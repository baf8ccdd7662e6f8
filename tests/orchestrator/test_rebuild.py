"""MongoDB alone can rebuild every queue: nothing that was stored depends on what the broker held."""

from datetime import timedelta

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import EntryKind, Wait, WaitKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import Parent, RunState
from aiki.engine.status import RunStatus
from aiki.orchestrator import rebuild
from aiki.testing.builders import T0, a_run, after, appended, completed, entry, running, sleeping, suspended
from tests.orchestrator.world import QUEUE, World, a_request, entries_of, keep


async def status_of(world: World, run: RunState) -> RunStatus | None:
    found = await world.run(run.run_id)
    return None if found is None else found.status


async def test_runs_go_on_after_the_broker_lost_everything(world: World) -> None:
    requests = [a_request() for _ in range(40)]
    await world.orchestrator()
    await world.publish(*requests)
    await world.until_idle()
    worker = await world.worker()
    await world.until_now(lambda: len(worker.executed) >= 40)
    await world.until_idle()

    world.hub.lose_everything()
    world.hub.start()
    report = await rebuild(world.store, world.client, world.clock)
    worker = await world.worker("w2")
    await world.until_over(*(request.run_id for request in requests))

    assert report.unfinished == 40
    for request in requests:
        assert [one.payload for one in await entries_of(world, request.run_id)] == ["1", "2"]


async def test_rule_1_a_run_that_was_queued_or_held_gets_a_new_dispatch(world: World) -> None:
    queued, held = await keep(world, a_run()), await keep(world, running())

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: len(world.hub.ready(QUEUE)) == 2)

    assert (report.unfinished, report.dispatched) == (2, 2)
    pairs = {command.run_id: command.pair for command in world.hub.ready(QUEUE) if isinstance(command, ExecuteRun)}
    for run in (queued, held):
        assert pairs[run.run_id].epoch == run.pair.epoch + 1
        assert pairs[run.run_id].dispatch_id != run.pair.dispatch_id


async def test_rebuilding_twice_dispatches_once(world: World) -> None:
    await keep(world, a_run())
    await keep(world, running())

    await rebuild(world.store, world.client, world.clock)
    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_idle()

    assert len(world.hub.ready(QUEUE)) == 2


@pytest.mark.parametrize(("blame", "recoveries"), [(False, 0), (True, 1)])
async def test_a_run_that_was_executing_is_blamed_only_if_its_process_may_have_died_of_it(
    world: World, blame: bool, recoveries: int
) -> None:
    run = await keep(world, running())

    await rebuild(world.store, world.client, world.clock, blame=blame)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    found = await world.run(run.run_id)
    assert found is not None
    assert found.recoveries == recoveries


async def test_a_run_that_sleeps_is_left_to_its_timer_unless_that_is_overdue(world: World) -> None:
    asleep, overdue = await keep(world, sleeping(3600)), await keep(world, sleeping(5))
    await world.clock.advance(10)

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_idle()

    assert (report.unfinished, report.dispatched, report.timers) == (2, 0, 1)
    assert await status_of(world, overdue) is RunStatus.QUEUED
    assert await status_of(world, asleep) is RunStatus.SLEEPING


async def test_a_retry_whose_delay_queue_is_gone_is_brought_back_by_its_timer(world: World) -> None:
    run = running()
    wait = Wait(kind=WaitKind.RETRY, operation="task:x#1", due_at=T0 + timedelta(seconds=10), delay_ms=10_000)
    waiting = await keep(world, after(run, suspended(run, wake_at=wait.due_at, waits=(wait,))))
    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()

    await world.until(lambda: world.hub.ready(QUEUE))

    assert await status_of(world, waiting) is RunStatus.QUEUED
    assert world.clock.now() <= T0 + timedelta(seconds=13)


async def test_rule_8_a_parent_hears_again_of_a_child_that_ended(world: World) -> None:
    parent = running()
    child_run = running(parent=Parent(run_id=parent.run_id, incarnation=parent.incarnation, operation="child:x#1"))
    begun = entry(parent, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source=child_run.run_id)
    parent = after(parent, appended(parent, begun))
    wait = Wait(kind=WaitKind.CHILD, operation="child:x#1", name=child_run.run_id)
    parent = after(parent, suspended(parent, waits=(wait,)))
    await keep(world, parent)
    await keep(world, after(child_run, completed(child_run)))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.outcomes == 1
    (command,) = world.hub.ready(QUEUE)
    assert isinstance(command, ExecuteRun)
    assert [item.payload for item in command.inbox] == [dump_payload("done")]


async def test_what_a_run_had_started_elsewhere_is_started_again(world: World) -> None:
    parent = running()
    begun = entry(parent, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source="a-child-that-was-never-stored")
    parent = after(parent, appended(parent, begun))
    wait = Wait(kind=WaitKind.CHILD, operation="child:x#1", name="a-child-that-was-never-stored")
    await keep(world, after(parent, suspended(parent, waits=(wait,))))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.dispatched == 1
    (command,) = world.hub.ready(QUEUE)
    assert isinstance(command, ExecuteRun)
    assert command.recovered


async def test_only_the_partitions_that_are_asked_for_are_rebuilt(world: World) -> None:
    for _ in range(40):
        await keep(world, a_run())

    reports = [await rebuild(world.store, world.client, world.clock, partitions=[number]) for number in range(4)]

    assert sum(report.unfinished for report in reports) == 40
    assert max(report.unfinished for report in reports) < 40
