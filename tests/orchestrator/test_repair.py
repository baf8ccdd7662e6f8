"""The sweep does what nobody did in time, and disturbs nobody who is merely slow."""

from collections.abc import Collection
from typing import Any

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.events import DispatchDoubted, TimerFired
from aiki.engine.ids import partition_of
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import BrokerUnavailableError
from aiki.orchestrator.repair import RepairSweep
from aiki.testing.builders import a_run, after, completed, running, sleeping, started
from tests.orchestrator.world import QUEUE, World, a_request, keep, services_of

LONG = 301.0


def said_to_partitions(world: World) -> list[Any]:
    return [event for number in range(4) for events in world.hub.ready(f"aiki.events.{number}") for event in events]


def doubted(world: World) -> set[str]:
    return {event.run_id for event in said_to_partitions(world) if isinstance(event, DispatchDoubted)}


async def a_lost_run(world: World, **changes: Any) -> RunState:
    return await keep(world, a_run(**changes))


class CountingStore:
    """A store that counts how often it is asked for runs."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.finds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find(self, *args: Any, **kwargs: Any) -> Any:
        self.finds += 1
        return await self._store.find(*args, **kwargs)


async def test_the_sweep_fires_what_is_overdue_by_more_than_a_slack_in_any_partition(world: World) -> None:
    sweep = RepairSweep(services_of(world))
    late = [await keep(world, sleeping(10)) for _ in range(8)]
    await keep(world, sleeping(12))
    await world.clock.advance(21)

    await sweep.sweep()

    fired = {event.run_id for event in said_to_partitions(world) if isinstance(event, TimerFired)}
    assert fired == {run.run_id for run in late}
    assert len({partition_of(run.run_id, 4) for run in late}) > 1


async def test_the_sweep_removes_finished_runs_whose_time_has_come(world: World) -> None:
    run = running(retention=60.0)
    over = await keep(world, after(run, completed(run)))
    sweep = RepairSweep(services_of(world))

    await sweep.sweep()
    assert await world.run(over.run_id) is not None
    await world.clock.advance(61)
    await sweep.sweep()

    assert await world.run(over.run_id) is None


async def test_a_run_whose_order_was_lost_with_its_queue_is_dispatched_again(world: World) -> None:
    orchestrator = await world.orchestrator()
    request = a_request()
    await world.publish(request)
    await world.until_now(lambda: world.hub.ready(QUEUE))
    (lost,) = world.hub.ready(QUEUE)
    world.hub.commands(QUEUE).clear()

    await world.until(lambda: world.hub.ready(QUEUE), step=5.0)

    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert order.pair.epoch == lost.pair.epoch + 1
    assert order.recovered
    assert orchestrator.stats.dispatches_doubted == 1


async def test_a_run_whose_queue_does_not_exist_is_dispatched_again(world: World) -> None:
    run = await a_lost_run(world)
    assert await world.client.backlog(run.queue, timeout=1.0) is None
    await world.clock.advance(LONG)

    await RepairSweep(services_of(world)).sweep()

    assert doubted(world) == {run.run_id}


async def test_runs_that_wait_for_a_worker_are_left_alone_however_long(world: World) -> None:
    await world.orchestrator()
    await world.publish(a_request())
    await world.until_now(lambda: world.hub.ready(QUEUE))
    services = services_of(world)
    await a_lost_run(world)  # Not to be told from one that waits, as long as any does.

    for _ in range(3):
        await world.clock.advance(LONG)
        await RepairSweep(services).sweep()
        await world.until_idle()

    assert services.stats.dispatches_doubted == 0
    assert len(world.hub.ready(QUEUE)) == 1


async def test_a_run_that_was_queued_a_moment_ago_is_left_alone_though_it_is_old(world: World) -> None:
    run = sleeping(3600.0)
    await world.clock.advance(3600.0)
    await world.orchestrator()
    await keep(world, run)
    await world.until_now(lambda: world.hub.ready(QUEUE))
    world.hub.commands(QUEUE).clear()

    await RepairSweep(services_of(world)).sweep()

    assert doubted(world) == set()


async def test_rule_2_a_run_that_was_taken_is_left_alone_though_nobody_has_heard_of_it_yet(world: World) -> None:
    run = await a_lost_run(world)
    await world.publish(started(run))
    await world.clock.advance(LONG)

    await RepairSweep(services_of(world)).sweep()
    assert doubted(world) == {run.run_id}
    await world.orchestrator()
    await world.until_idle()

    found = await world.run(run.run_id)
    assert found is not None
    assert (found.status, found.pair) == (RunStatus.RUNNING, run.pair)


async def test_an_order_that_nobody_can_take_is_given_again_by_the_sweep_once(world: World) -> None:
    await world.orchestrator()
    run = await a_lost_run(world)
    sweep = RepairSweep(services_of(world))

    for _ in range(3):
        await world.clock.advance(LONG)
        await sweep.sweep()
        await world.until_idle()
        world.hub.commands(QUEUE).clear()

    found = await world.run(run.run_id)
    assert found is not None
    assert found.pair.epoch == run.pair.epoch + 1


async def test_a_long_backlog_costs_each_sweep_the_same_and_hides_no_lost_order(world: World) -> None:
    lost = await a_lost_run(world, queue="elsewhere@1.0.0")
    store = CountingStore(world.store)
    sweep = RepairSweep(services_of(world, store=store))
    await world.clock.advance(1)
    await keep_all(world, [a_run(seconds=1) for _ in range(1500)])
    world.hub.inject(QUEUE, b"{}")
    await world.clock.advance(LONG)

    await sweep.sweep()
    assert (store.finds, doubted(world)) == (5, set())
    await sweep.sweep()

    assert store.finds <= 10
    assert doubted(world) == {lost.run_id}


async def keep_all(world: World, runs: Collection[RunState]) -> None:
    for run in runs:
        await keep(world, run)


async def test_where_no_backlog_can_be_told_nothing_is_doubted(world: World) -> None:
    await a_lost_run(world)
    await world.clock.advance(LONG)
    broker = await world.broker()

    async def unknown(queue: str, *, timeout: float) -> int | None:
        raise BrokerUnavailableError(f"{queue} has no leader")

    broker.backlog = unknown  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailableError):
        await RepairSweep(services_of(world, broker)).sweep()

    assert doubted(world) == set()
