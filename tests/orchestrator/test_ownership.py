"""Partitions are shared out among those who are there, and nobody waits for it."""

from collections.abc import Sequence

from aiki.engine.events import CancelRequested
from aiki.engine.ids import partition_of
from aiki.orchestrator import Orchestrator
from aiki.orchestrator.ownership import preferred_owners
from aiki.testing.builders import T0
from tests.orchestrator.faults import SwitchedStore
from tests.orchestrator.world import QUEUE, World, a_request

BEAT = 10.0


async def poke(world: World) -> None:
    """Send something to every partition, so that whoever is served shows."""
    for number in range(world.hub.partitions):
        run_id = next(name for name in (f"ghost-{n}" for n in range(1000)) if partition_of(name, 4) == number)
        await world.publish(CancelRequested(id="poke", run_id=run_id, at=T0))
    await world.until_idle()


async def settle(world: World, *orchestrators: Orchestrator) -> None:
    """Let everybody see who is there, twice: once to see, once to be seen."""
    for _ in range(4):
        await world.until_now(lambda: world.clock.sleepers > 0)
        await world.clock.advance(BEAT)
        for orchestrator in orchestrators:
            await orchestrator._ownership.beat()
    await poke(world)


def assert_shared_out(orchestrators: Sequence[Orchestrator]) -> None:
    preferred = preferred_owners([one.name for one in orchestrators], 4)
    expected = {one.name: {n for n, owner in enumerate(preferred) if owner == one.name} for one in orchestrators}
    assert {one.name: set(one.active) for one in orchestrators} == expected


async def test_one_alone_owns_everything(world: World) -> None:
    alone = await world.orchestrator("alone")

    await poke(world)

    assert alone.active == alone.owned == frozenset(range(4))


async def test_two_that_come_one_after_the_other_share(world: World) -> None:
    first = await world.orchestrator("first")
    await poke(world)
    second = await world.orchestrator("second")

    await settle(world, first, second)

    assert_shared_out([first, second])


async def test_three_share_and_when_one_goes_the_others_take_over(world: World) -> None:
    three = [await world.orchestrator(name) for name in ("first", "second", "third")]
    await settle(world, *three)
    assert_shared_out(three)

    await three[1].stop()
    remaining = [three[0], three[2]]
    await settle(world, *remaining)

    assert_shared_out(remaining)


async def test_one_that_dies_is_replaced_at_once_and_missed_when_its_presence_expires(world: World) -> None:
    broker, store = await world.broker(), SwitchedStore(world.store)
    dead = await world.orchestrator("dead", broker=broker, store=store)
    alive = await world.orchestrator("alive")
    await settle(world, dead, alive)
    assert_shared_out([dead, alive])

    world.hub.isolate(broker)
    await poke(world)
    assert alive.active == frozenset(range(4))
    store.is_away = True
    await world.until(lambda: alive.report()["orchestrators"] == ["alive"], step=5)

    assert alive.owned == frozenset(range(4))


async def test_one_that_lost_the_broker_for_a_moment_gets_its_partitions_back(world: World) -> None:
    broker = await world.broker()
    unlucky = await world.orchestrator("unlucky", broker=broker)
    other = await world.orchestrator("other")
    await settle(world, unlucky, other)
    assert_shared_out([unlucky, other])

    world.hub.disconnect(broker)
    await world.until_now(lambda: unlucky.stats.subscriptions_lost >= 4)
    await settle(world, unlucky, other)

    assert_shared_out([unlucky, other])


async def test_nothing_is_lost_or_done_twice_while_partitions_change_hands(world: World) -> None:
    requests = [a_request() for _ in range(120)]
    orchestrators = [await world.orchestrator("first")]
    worker = await world.worker(naps=False)
    for number, request in enumerate(requests):
        await world.publish(request)
        if number % 30 == 10:
            orchestrators.append(await world.orchestrator(f"next-{number}"))
        if number % 30 == 20:
            await orchestrators.pop(0).stop()
        await world.clock.advance(1)

    await world.until_over(*(request.run_id for request in requests))

    assert set(worker.executed.values()) == {1}
    assert world.hub.ready(QUEUE) == ()
