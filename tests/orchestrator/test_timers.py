"""Timers fire once, on time, whoever owns their partition."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.decide import Moment
from aiki.engine.events import TimerFired
from aiki.engine.holding import implied_by_suspension
from aiki.engine.journal import Wait, WaitKind
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import BrokerUnavailableError, StoreError
from aiki.orchestrator.timers import Timers, timer_fired
from aiki.ports.store import RunChange, Store
from aiki.testing.builders import T0, after, running, sleeping, suspended
from tests.orchestrator.world import World, a_request, keep, services_of


def awaiting_retry(seconds: float, delay_ms: int) -> RunState:
    run = running()
    due_at = T0 + timedelta(seconds=seconds)
    wait = Wait(kind=WaitKind.RETRY, operation="task:step:1#1", due_at=due_at, delay_ms=delay_ms)
    return after(run, suspended(run, wake_at=due_at, waits=(wait,)))


def fired(world: World) -> list[TimerFired]:
    """What timers have sent, with nobody there to deal with it."""
    bodies = [body for number in range(4) for body in world.hub.ready(f"aiki.events.{number}")]
    return [event for body in bodies for event in body if isinstance(event, TimerFired)]


@pytest.fixture
async def timers(world: World) -> Timers:
    timers = Timers(services_of(world))
    timers.assign(range(4))
    world.background(timers.run())
    return timers


async def test_a_timer_fires_when_it_is_due_and_not_before(world: World, timers: Timers) -> None:
    run = await keep(world, sleeping(30))
    timers.reload()
    await world.until_now(lambda: len(timers) == 1)

    await world.clock.advance(29.9)
    assert fired(world) == []
    await world.clock.advance(0.1)
    await world.until_now(lambda: fired(world))

    (event,) = fired(world)
    assert (event.run_id, event.pair, event.due_at) == (run.run_id, run.pair, run.wake_at)
    assert event.at == run.wake_at


async def test_a_timer_beyond_the_horizon_is_loaded_as_it_comes_near(world: World, timers: Timers) -> None:
    await keep(world, sleeping(3600))
    timers.reload()

    await world.until(lambda: len(timers) == 1, step=10)
    assert world.clock.now() >= T0 + timedelta(seconds=3600 - 61)
    await world.until(lambda: fired(world), step=1)

    assert world.clock.now() < T0 + timedelta(seconds=3602)


async def test_rule_9_the_timers_of_a_silent_partition_are_loaded_when_it_is_assigned(world: World) -> None:
    await keep(world, sleeping(5))
    timers = Timers(services_of(world))
    world.background(timers.run())
    await world.clock.advance(10)
    assert fired(world) == []

    timers.assign(range(4))
    await world.until_now(lambda: fired(world))


async def test_a_run_that_moved_on_before_its_timer_was_due_is_left_alone(world: World, timers: Timers) -> None:
    run = await keep(world, sleeping(30))
    timers.reload()
    await world.until_now(lambda: len(timers) == 1)

    change = RunChange.between(run, replace(run, status=RunStatus.QUEUED, wake_at=None))
    await world.store.commit([change])
    timers.follow(change.after, armed=False)
    await world.clock.advance(60)

    assert fired(world) == []


async def test_a_timer_that_is_moved_forward_wakes_the_sleeper(world: World, timers: Timers) -> None:
    await keep(world, sleeping(50))
    timers.reload()
    await world.until_now(lambda: len(timers) == 1)

    timers.follow(sleeping(3), armed=False)
    await world.clock.advance(3)

    await world.until_now(lambda: len(fired(world)) == 1)


async def test_a_timer_that_fired_is_not_fired_again_while_its_event_is_on_its_way(
    world: World, timers: Timers
) -> None:
    await keep(world, sleeping(1))
    timers.reload()

    await world.until(lambda: fired(world))
    timers.reload()
    await world.until(lambda: world.clock.now() > T0 + timedelta(seconds=100), step=5)

    assert len(fired(world)) == 1


async def test_a_retry_that_the_broker_brings_back_is_given_some_slack(world: World, timers: Timers) -> None:
    await keep(world, sleeping(50))
    timers.reload()
    await world.until_now(lambda: len(timers) == 1)

    timers.follow(awaiting_retry(10, 10_000), armed=True)
    timers.follow(awaiting_retry(10, 10_000), armed=False)

    await world.clock.advance(11)
    await world.until_now(lambda: len(fired(world)) == 1)
    await world.clock.advance(1)
    await world.until_now(lambda: len(fired(world)) == 2)


async def test_a_loaded_retry_is_given_the_same_slack(world: World, timers: Timers) -> None:
    await keep(world, awaiting_retry(10, 10_000))
    timers.reload()
    await world.until_now(lambda: len(timers) == 1)

    await world.clock.advance(11)
    assert fired(world) == []
    await world.clock.advance(1)
    await world.until_now(lambda: len(fired(world)) == 1)


async def test_a_timer_has_the_same_event_whoever_sends_it(world: World) -> None:
    run = awaiting_retry(10, 10_000)
    (armed,) = implied_by_suspension(run, Moment(T0, ""))

    assert run.wake_at is not None
    assert getattr(armed, "event", None) == timer_fired(run, run.wake_at, T0)


class Unreachable:
    """A broker that refuses the first few sends."""

    def __init__(self, broker: MemoryBroker, times: int) -> None:
        self._broker = broker
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def send(self, *args: Any, **kwargs: Any) -> None:
        if self.left:
            self.left -= 1
            raise BrokerUnavailableError("away")
        await self._broker.send(*args, **kwargs)


async def test_a_timer_that_could_not_be_sent_is_sent_later(world: World) -> None:
    broker = Unreachable(world.client, times=3)
    timers = Timers(services_of(world, broker))
    timers.assign(range(4))
    await keep(world, sleeping(1))
    world.background(timers.run())

    await world.until(lambda: fired(world), step=0.2)

    assert broker.left == 0
    assert len(fired(world)) == 1


class ConfusedStore:
    """A store that cannot read what it finds, the first few times."""

    def __init__(self, store: Any, times: int) -> None:
        self._store = store
        self.left = times

    async def due(self, *args: Any, **kwargs: Any) -> Any:
        if self.left:
            self.left -= 1
            raise StoreError("this is none of my documents")
        return await self._store.due(*args, **kwargs)


async def test_timers_that_could_not_be_read_are_read_later(world: World) -> None:
    store = ConfusedStore(world.store, times=3)
    timers = Timers(replace(services_of(world), store=cast(Store, store)))
    timers.assign(range(4))
    await keep(world, sleeping(1))
    world.background(timers.run())

    await world.until(lambda: fired(world), step=0.2)

    assert world.clock.now() < T0 + timedelta(seconds=30)


async def test_thousands_of_overdue_timers_fire_page_by_page(world: World) -> None:
    runs = [sleeping(1 + number / 1000) for number in range(4500)]
    await world.store.commit([RunChange.between(None, run) for run in runs])
    await world.clock.advance(10)
    orchestrator = await world.orchestrator()

    await world.until(lambda: orchestrator.stats.timers_fired >= 4500)
    await world.until(lambda: all_are_queued(world, runs))


async def all_are_queued(world: World, runs: list[RunState]) -> bool:
    found = await world.store.load([run.run_id for run in runs])
    return all(run.status is RunStatus.QUEUED for run in found.values())


async def test_a_nap_is_over_even_if_its_owner_never_fires_it(world: World) -> None:
    orchestrator = await world.orchestrator()
    await world.worker()
    request = a_request()
    orchestrator._timers.assign = lambda _: None  # type: ignore[assignment,method-assign]
    orchestrator._timers._partitions = frozenset()
    orchestrator._timers.follow = lambda *_, **__: None  # type: ignore[method-assign]

    await world.publish(request)
    await world.until_over(request.run_id)

    assert orchestrator.stats.timers_repaired >= 1
