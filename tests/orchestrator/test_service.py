"""The service: starting, stopping without loss, and what it says of itself."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from aiki import asynchronous
from aiki.adapters.broker.memory import MemoryBroker
from aiki.errors import BrokerUnavailableError, ConfigurationError
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.ports.store import Presence
from tests.orchestrator.world import QUEUE, World, a_request


async def test_another_number_of_partitions_is_refused(world: World) -> None:
    world.hub.partitions = 6
    orchestrator = Orchestrator(await world.broker(), world.store, world.clock)

    with pytest.raises(ConfigurationError, match="4 partitions, this orchestrator with 6"):
        await orchestrator.start()


class SlowBroker:
    """A broker whose sends take until they may go on."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.sending = asyncio.Event()
        self.proceed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def send(self, *args: Any, **kwargs: Any) -> None:
        self.sending.set()
        await self.proceed.wait()
        await self._broker.send(*args, **kwargs)


def held(world: World) -> int:
    return sum(world.hub.held(f"aiki.events.{number}") for number in range(4))


def waiting(world: World) -> int:
    return sum(len(world.hub.ready(f"aiki.events.{number}")) for number in range(4))


async def test_stopping_finishes_and_acknowledges_what_is_in_hand(world: World) -> None:
    broker = SlowBroker(await world.broker())
    orchestrator = await world.orchestrator(broker=broker)
    await world.publish(a_request())
    await broker.sending.wait()

    stopping = asyncio.create_task(orchestrator.stop(grace=10))
    await asyncio.sleep(0)
    assert not stopping.done()
    broker.proceed.set()
    await stopping

    assert len(world.hub.ready(QUEUE)) == 1
    assert (held(world), waiting(world)) == (0, 0)
    assert await world.store.present("orchestrator", now=world.clock.now()) == []


async def test_what_is_not_finished_within_the_grace_is_given_back(world: World) -> None:
    broker = SlowBroker(await world.broker())
    orchestrator = await world.orchestrator(broker=broker)
    request = a_request()
    await world.publish(request)
    await broker.sending.wait()

    await orchestrator.stop(grace=0.01)

    assert (held(world), waiting(world)) == (0, 1)
    await world.orchestrator("heir")
    await world.until(lambda: world.hub.ready(QUEUE))


async def test_what_comes_after_the_stop_is_left_to_others(world: World) -> None:
    orchestrator = await world.orchestrator()
    await orchestrator.stop()
    await orchestrator.stop()

    await world.publish(a_request())

    assert waiting(world) == 1


async def test_stopping_does_not_wait_for_a_broker_that_is_away(world: World) -> None:
    orchestrator = await world.orchestrator()
    await world.clock.advance(1)
    world.hub.stop()
    await world.until_now(lambda: orchestrator.stats.subscriptions_lost > 0)

    async with asyncio.timeout(5):
        await orchestrator.stop(grace=60)


async def test_run_goes_on_until_it_is_stopped(world: World) -> None:
    orchestrator = Orchestrator(await world.broker(), world.store, world.clock, OrchestratorSettings(name="one"))
    running = asyncio.create_task(orchestrator.run())
    await world.publish(a_request())
    await world.until_now(lambda: world.hub.ready(QUEUE))
    assert not running.done()

    await orchestrator.stop()

    await running


async def test_cancelling_run_stops_in_order(world: World) -> None:
    orchestrator = Orchestrator(await world.broker(), world.store, world.clock, OrchestratorSettings(name="one"))
    running = asyncio.create_task(orchestrator.run())
    await world.publish(a_request())
    await world.until_now(lambda: world.hub.ready(QUEUE))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (held(world), waiting(world)) == (0, 0)
    assert await world.store.present("orchestrator", now=world.clock.now()) == []


async def test_a_fault_in_one_part_ends_the_service_and_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator = Orchestrator(await world.broker(), world.store, world.clock, OrchestratorSettings(name="one"))

    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(orchestrator._committer, "run", fail)
    await orchestrator.start()

    with pytest.raises(ZeroDivisionError):
        await orchestrator.wait()


async def test_it_stops_though_a_driver_drops_a_cancellation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "AGAIN_SECONDS", 0.01)
    under_way, announce = asyncio.Event(), world.store.announce

    async def drop_the_first_cancellation(presence: Presence) -> None:
        if not under_way.is_set():
            under_way.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await announce(presence)

    monkeypatch.setattr(world.store, "announce", drop_the_first_cancellation)
    orchestrator = Orchestrator(await world.broker(), world.store, world.clock, OrchestratorSettings(name="one"))
    await orchestrator.start()
    await under_way.wait()

    await asyncio.wait_for(orchestrator.stop(), 10)


async def test_it_works_again_after_the_broker_was_away(world: World) -> None:
    orchestrator = await world.orchestrator()
    await world.publish(a_request())
    await world.until_now(lambda: len(world.hub.ready(QUEUE)) == 1)

    world.hub.stop()
    await world.until_now(lambda: orchestrator.stats.subscriptions_lost > 0)
    with pytest.raises(BrokerUnavailableError):
        await world.client.publish_events(0, [a_request()], timeout=0.01)
    world.hub.start()
    await world.publish(a_request())

    await world.until(lambda: len(world.hub.ready(QUEUE)) == 2)


async def test_the_health_endpoint_tells_how_it_is(world: World) -> None:
    orchestrator = await world.orchestrator("one", health=("127.0.0.1", 0))
    await world.publish(a_request())
    await world.until_now(lambda: world.hub.ready(QUEUE))

    status, report = await probe(orchestrator)
    assert status == 200
    assert [report["ready"], report["connected"], report["store"]] == [True, True, True]
    assert report["partitions"] == [0, 1, 2, 3]
    assert report["stats"]["events"] == 1

    world.hub.stop()

    status, report = await probe(orchestrator)
    assert status == 503
    assert not report["connected"]


async def probe(orchestrator: Orchestrator) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", orchestrator.health_port)
    writer.write(b"GET /ready HTTP/1.1\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)
