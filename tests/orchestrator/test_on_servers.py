"""The orchestrator on RabbitMQ and MongoDB: what it does on the broker in memory, it does there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.clock import SystemClock
from aiki.adapters.store.mongodb import MongoStore
from aiki.engine.commands import ExecuteRun
from aiki.engine.events import CancelRequested, RunRequested, RunStarted
from aiki.engine.ids import partition_of
from aiki.engine.queries import GetRun, RunFound
from aiki.engine.status import RunStatus
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.orchestrator.ownership import preferred_owners
from tests.orchestrator.world import ScriptedWorker, a_request

PARTITIONS = 4
PATIENCE = 30.0


class Servers:
    """Connections to RabbitMQ and MongoDB, made when they are asked for."""

    def __init__(self, amqp_url: str, mongodb_url: str, stack: AsyncExitStack) -> None:
        self.clock = SystemClock()
        self.store = MongoStore(mongodb_url)
        self.client: RabbitBroker
        self.exit = stack
        self._amqp_url = amqp_url

    async def start(self) -> None:
        self.exit.push_async_callback(self.store.close)
        await self.store.start()
        self.client = await self.broker("client")

    async def broker(self, name: str) -> RabbitBroker:
        broker = RabbitBroker(self._amqp_url, partitions=PARTITIONS, name=name)
        self.exit.push_async_callback(broker.close)
        await broker.start()
        return broker

    async def orchestrator(self, name: str, **changes: Any) -> Orchestrator:
        settings = replace(OrchestratorSettings(name=name, heartbeat=0.2, presence=2.0), **changes)
        orchestrator = Orchestrator(await self.broker(name), self.store, self.clock, settings)
        await orchestrator.start()
        self.exit.push_async_callback(orchestrator.stop)
        return orchestrator

    async def worker(self, name: str) -> ScriptedWorker:
        worker = ScriptedWorker(name, await self.broker(name), self.clock, nap=0.2)
        task = asyncio.create_task(worker.run())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.exit.push_async_callback(end)
        return worker

    async def publish(self, *requests: RunRequested) -> None:
        for partition in range(PARTITIONS):
            events = [one for one in requests if partition_of(one.run_id, PARTITIONS) == partition]
            if events:
                await self.client.publish_events(partition, events, timeout=PATIENCE)

    async def poke(self) -> None:
        """Send something to every partition, so that whoever is served shows."""
        for number in range(PARTITIONS):
            names = (f"ghost-{n}" for n in range(1000))
            run_id = next(name for name in names if partition_of(name, PARTITIONS) == number)
            event = CancelRequested(id="poke", run_id=run_id, at=self.clock.now())
            await self.client.publish_events(number, [event], timeout=PATIENCE)

    async def all_completed(self, requests: list[RunRequested]) -> bool:
        runs = await self.store.load([request.run_id for request in requests])
        return len(runs) == len(requests) and all(run.status is RunStatus.COMPLETED for run in runs.values())


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110 - what is in a database wakes nobody.
            await asyncio.sleep(0.05)


@pytest.fixture
async def servers(amqp_url: str, mongodb_url: str) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        servers = Servers(amqp_url, mongodb_url, stack)
        await servers.start()
        yield servers


async def test_runs_come_to_their_end_while_orchestrators_come_and_go(servers: Servers) -> None:
    first = await servers.orchestrator("first")
    await servers.worker("w1")
    requests = [a_request(at=servers.clock.now()) for _ in range(90)]

    await servers.publish(*requests[:30])
    await servers.orchestrator("second")
    await servers.publish(*requests[30:60])
    await first.stop()
    await servers.publish(*requests[60:])
    await until(lambda: servers.all_completed(requests))

    for run in (await servers.store.load([request.run_id for request in requests])).values():
        assert [entry.payload for entry in await servers.store.journal(run)] == ["1", "2"]


async def test_partitions_are_shared_out(servers: Servers) -> None:
    orchestrators = [await servers.orchestrator(name) for name in ("first", "second", "third")]
    preferred = preferred_owners([one.name for one in orchestrators], PARTITIONS)
    expected = {one.name: {n for n, owner in enumerate(preferred) if owner == one.name} for one in orchestrators}

    async def are_shared_out() -> bool:
        await servers.poke()
        return {one.name: set(one.active) for one in orchestrators} == expected

    await until(are_shared_out)


async def test_a_query_is_answered(servers: Servers) -> None:
    await servers.orchestrator("one")
    request = a_request(at=servers.clock.now())
    await servers.publish(request)

    async def is_found() -> bool:
        answer = await servers.client.ask(GetRun(run_id=request.run_id), timeout=PATIENCE)
        return isinstance(answer, RunFound) and answer.run is not None

    await until(is_found)


async def test_bytes_that_nobody_can_read_are_kept_as_a_dead_letter(servers: Servers) -> None:
    orchestrator = await servers.orchestrator("one")
    request = a_request(at=servers.clock.now(), queue="*not a queue*")

    await servers.publish(request)
    await until(lambda: _are_stored(orchestrator, 1))

    (stored,) = (await servers.store.dead_letters(limit=5, cursor=None, include_done=False)).letters
    assert stored.letter.reason == "the event cannot be applied"


async def _are_stored(orchestrator: Orchestrator, number: int) -> bool:
    return orchestrator.stats.dead_letters_stored >= number


async def test_a_run_goes_on_whose_order_went_with_its_holder(servers: Servers) -> None:
    orchestrator = await servers.orchestrator("one", lost_after=0.5, sweep_every=0.2)
    request = a_request(at=servers.clock.now())
    await servers.publish(request)
    holder = await servers.broker("holder")
    orders = await holder.consume_commands([request.queue], prefetch=1)
    (delivery,) = await orders.receive()
    order = delivery.body
    assert isinstance(order, ExecuteRun)
    started = RunStarted(
        id="started",
        run_id=order.run_id,
        at=servers.clock.now(),
        incarnation=order.incarnation,
        pair=order.pair,
        worker="holder",
    )

    await holder.publish_events(partition_of(order.run_id, PARTITIONS), [started], timeout=PATIENCE)
    await orders.acknowledge([delivery])
    await holder.close()
    worker = await servers.worker("w1")

    await until(lambda: servers.all_completed([request]))
    assert [command.recovered for command in worker.commands][:1] == [True]
    assert orchestrator.stats.dispatches_doubted >= 1
