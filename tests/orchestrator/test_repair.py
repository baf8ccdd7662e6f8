"""The sweep does what nobody did in time, and disturbs nobody who is merely slow."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerNotice
from aiki.engine.events import DispatchDoubted, RunOrphaned, TimerFired
from aiki.engine.ids import partition_of
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import BrokerUnavailableError
from aiki.orchestrator import repair
from aiki.orchestrator.repair import RepairSweep
from aiki.ports.store import Presence
from aiki.testing.builders import a_run, running, sleeping, started
from tests.orchestrator.world import QUEUE, World, a_request, keep, services_of

LONG = 301.0


def said_to_partitions(world: World) -> list[Any]:
    return [event for number in range(4) for events in world.hub.ready(f"aiki.events.{number}") for event in events]


def doubted(world: World) -> set[str]:
    return {event.run_id for event in said_to_partitions(world) if isinstance(event, DispatchDoubted)}


async def a_lost_run(world: World, **changes: Any) -> RunState:
    return await keep(world, a_run(**changes))


def assert_dispatched_again(world: World, lost: Any) -> None:
    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert order.pair.epoch == lost.pair.epoch + 1
    assert order.recovered


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


async def test_a_run_whose_order_was_lost_with_its_queue_is_dispatched_again(world: World) -> None:
    orchestrator = await world.orchestrator()
    request = a_request()
    await world.publish(request)
    await world.until_now(lambda: world.hub.ready(QUEUE))
    (lost,) = world.hub.ready(QUEUE)
    world.hub.commands(QUEUE).clear()

    await world.until(lambda: world.hub.ready(QUEUE), step=5.0)

    assert_dispatched_again(world, lost)
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
    assert (store.finds, doubted(world)) == (6, set())  # Five pages of what is queued, one of what is running.
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


class TestRunsThatAreHeld:
    """A run counts as running, and nothing says that anybody executes it."""

    @staticmethod
    async def present(world: World, worker: str = "w1") -> None:
        expires_at = world.clock.now() + timedelta(seconds=65)
        await world.store.announce(Presence(id=worker, kind="worker", facts={}, expires_at=expires_at))

    @staticmethod
    def orphaned(world: World) -> set[str]:
        return {event.run_id for event in said_to_partitions(world) if isinstance(event, RunOrphaned)}

    async def test_a_run_whose_order_was_lost_with_its_holder_is_dispatched_again(self, world: World) -> None:
        orchestrator = await world.orchestrator()
        await world.publish(a_request())
        await world.until_now(lambda: world.hub.ready(QUEUE))
        (lost,) = world.hub.ready(QUEUE)
        assert isinstance(lost, ExecuteRun)
        world.hub.commands(QUEUE).clear()
        run = await world.run(lost.run_id)
        assert run is not None
        await world.publish(started(run, worker="w1"))

        await world.until(lambda: world.hub.ready(QUEUE), step=5.0)

        assert_dispatched_again(world, lost)
        assert orchestrator.stats.dispatches_doubted == 1

    async def test_a_holder_that_is_there_is_asked_and_nobody_speaks_for_it(self, world: World) -> None:
        run = await keep(world, running())
        worker = await world.worker("w1")
        services = services_of(world)
        sweep = RepairSweep(services)
        await world.clock.advance(LONG)
        for _ in range(2):
            await self.present(world)
            await sweep.sweep()

        await world.until_now(lambda: len(worker.told) == 2)
        assert worker.told[0] == NotifyWorker(
            worker="w1",
            run_id=run.run_id,
            pair=run.pair,
            notice=WorkerNotice.DOUBTED,
            incarnation=run.incarnation,
        )
        assert self.orphaned(world) == set()
        assert (services.stats.holders_asked, services.stats.dispatches_doubted) == (2, 0)

    async def test_a_holder_that_is_missed_for_the_first_time_may_be_there(self, world: World) -> None:
        run = await keep(world, running())
        sweep = RepairSweep(services_of(world))
        await world.clock.advance(LONG)

        await sweep.sweep()
        assert self.orphaned(world) == set()
        await self.present(world)
        await sweep.sweep()
        await world.clock.advance(66)
        await sweep.sweep()
        assert self.orphaned(world) == set()

        await sweep.sweep()
        assert self.orphaned(world) == {run.run_id}

    async def test_a_run_under_a_lease_is_left_to_the_lease(self, world: World) -> None:
        await keep(world, replace(running(), lease_until=world.clock.now() + timedelta(seconds=2 * LONG)))
        sweep = RepairSweep(services_of(world))
        await world.clock.advance(LONG)

        await sweep.sweep()
        await sweep.sweep()

        assert self.orphaned(world) == set()

    async def test_a_run_that_was_dispatched_a_moment_ago_is_left_alone(self, world: World) -> None:
        await keep(world, replace(running(), dispatched_at=world.clock.now() + timedelta(seconds=LONG)))
        sweep = RepairSweep(services_of(world))
        await world.clock.advance(LONG)

        await sweep.sweep()
        await sweep.sweep()

        assert self.orphaned(world) == set()

    async def test_more_than_one_sweep_looks_at_are_all_looked_at(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repair, "_PAGE", 2)
        monkeypatch.setattr(repair, "_PAGES", 2)
        runs = [await keep(world, running()) for _ in range(9)]
        sweep = RepairSweep(services_of(world))
        await world.clock.advance(LONG)

        for _ in range(6):
            await sweep.sweep()

        assert self.orphaned(world) == {run.run_id for run in runs}
