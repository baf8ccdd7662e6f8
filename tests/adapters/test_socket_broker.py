"""The broker over a unix socket: the contract of the client's part, and what happens when the other process goes."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.broker.socket import SocketBroker, SocketServer, is_served, socket_path
from aiki.adapters.broker.socket.frames import connect
from aiki.adapters.clock import SystemClock
from aiki.engine.commands import Command, DeadLetter, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.engine.queries import Answer, GetRun, Query, RunFound
from aiki.errors import BrokerUnavailableError, PublishUncertainError, QueryTimeoutError
from aiki.ports.broker import Broker, NoticeSubscription, Request, Subscription
from aiki.testing.contracts.broker import BrokerContract, BrokerSystem
from aiki.testing.contracts.broker_parts.system import PATIENCE, collect, signal, until


class SocketEnd(Broker):
    """A process's end of the broker: what a client does goes over the socket, the rest is in memory."""

    def __init__(self, socket: SocketBroker, memory: MemoryBroker) -> None:
        self.socket = socket
        self.memory = memory

    @property
    def partitions(self) -> int:
        return self.socket.partitions

    @property
    def is_connected(self) -> bool:
        return self.socket.is_connected

    async def start(self) -> None:
        await self.memory.start()
        await self.socket.start()

    async def close(self) -> None:
        await self.socket.close()
        await self.memory.close()

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        await self.socket.publish_events(partition, events, timeout=timeout)

    async def consume_notices(self, client: str) -> NoticeSubscription:
        return await self.socket.consume_notices(client)

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        return await self.socket.ask(query, timeout=timeout)

    async def consume_commands(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        return await self.memory.consume_commands(queues, prefetch=prefetch)

    async def consume_control(self, worker: str) -> Subscription[NotifyWorker]:
        return await self.memory.consume_control(worker)

    async def park(self, letter: DeadLetter, *, timeout: float) -> None:
        await self.memory.park(letter, timeout=timeout)

    async def consume_events(self, partition: int, *, prefetch: int) -> Subscription[tuple[Event, ...]]:
        return await self.memory.consume_events(partition, prefetch=prefetch)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        await self.memory.send(commands, timeout=timeout)

    async def backlog(self, queue: str, *, timeout: float) -> int | None:
        return await self.memory.backlog(queue, timeout=timeout)

    async def consume_dead_letters(self, *, prefetch: int) -> Subscription[DeadLetter]:
        return await self.memory.consume_dead_letters(prefetch=prefetch)

    async def redeliver(self, letter: DeadLetter, *, timeout: float) -> None:
        await self.memory.redeliver(letter, timeout=timeout)

    async def consume_queries(self, *, prefetch: int) -> Subscription[Request]:
        return await self.memory.consume_queries(prefetch=prefetch)

    async def answer(self, request: Request, answer: Answer) -> None:
        await self.memory.answer(request, answer)


class SocketSystem(BrokerSystem):
    """A hub, a server of its own connection to it, and ends that speak to that."""

    def __init__(self, database: Path, *, durable_confirms: bool = False) -> None:
        self.database = database
        self.hub = MemoryHub(clock=SystemClock(), partitions=3, durable_confirms=durable_confirms)
        self.served = MemoryBroker(self.hub)
        self.server = SocketServer(self.served, socket_path(database))
        self.ends: list[SocketEnd] = []

    async def start(self) -> None:
        await self.served.start()
        await self.server.start()

    @property
    def partitions(self) -> int:
        return self.hub.partitions

    async def connect(self) -> SocketEnd:
        end = SocketEnd(SocketBroker(self.database), MemoryBroker(self.hub))
        await end.start()
        self.ends.append(end)
        return end

    async def cut(self, broker: Broker) -> None:
        self.hub.disconnect(self._own(broker).memory)
        await self.server.close()
        await self.server.start()

    async def isolate(self, broker: Broker) -> None:
        self.hub.isolate(self._own(broker).memory)
        await self.server.close()

    async def rejoin(self, broker: Broker) -> None:
        self.hub.rejoin(self._own(broker).memory)
        await self.server.start()

    async def inject(self, queue: str, body: bytes) -> None:
        self.hub.inject(queue, body)

    async def close(self) -> None:
        for end in self.ends:
            await end.close()
        await self.server.close()
        await self.served.close()

    def _own(self, broker: Broker) -> SocketEnd:
        return next(own for own in self.ends if own is broker)


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[SocketSystem]:
    system = SocketSystem(tmp_path / "dev.db")
    await system.start()
    yield system
    await system.close()


class TestSocketBroker(BrokerContract):
    """The whole contract, with what a client does going over the socket."""


async def test_without_a_server_starting_says_what_to_do(tmp_path: Path) -> None:
    broker = SocketBroker(tmp_path / "dev.db")

    with pytest.raises(BrokerUnavailableError, match="aiki dev"):
        await broker.start()

    assert not is_served(tmp_path / "dev.db")


async def test_a_socket_that_a_killed_process_left_is_nobody(system: SocketSystem) -> None:
    left = system.database.with_name("left.db")
    os.link(socket_path(system.database), socket_path(left))
    await system.server.close()

    assert socket_path(left).exists()
    assert not is_served(left)
    with pytest.raises(BrokerUnavailableError):
        await SocketBroker(left).start()


async def test_the_socket_is_for_its_owner_alone(system: SocketSystem) -> None:
    mode = socket_path(system.database).stat().st_mode

    assert stat.S_IMODE(mode) & 0o077 == 0


async def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    system = SocketSystem(folder / "dev.db")
    await system.start()

    end = await system.connect()

    assert end.partitions == 3
    await system.close()


async def test_a_lost_answer_leaves_a_publish_uncertain(tmp_path: Path) -> None:
    system = SocketSystem(tmp_path / "dev.db", durable_confirms=True)
    await system.start()
    end = await system.connect()
    publishing = asyncio.create_task(end.publish_events(0, [signal(1)], timeout=PATIENCE))
    await collect(await end.consume_events(0, prefetch=1), 1)

    await system.server.close()

    with pytest.raises(PublishUncertainError):
        await publishing
    await system.close()


async def test_errors_of_the_other_process_arrive_as_what_they_are(system: SocketSystem) -> None:
    end = await system.connect()

    with pytest.raises(QueryTimeoutError, match=r"within 0\.05 s"):
        await end.ask(GetRun(run_id="run-1"), timeout=0.05)
    system.hub.stop()
    with pytest.raises(BrokerUnavailableError):
        await end.publish_events(0, [signal(1)], timeout=0.05)


async def test_rubbish_on_the_socket_ends_that_connection_and_no_other(system: SocketSystem) -> None:
    end = await system.connect()
    with connect(socket_path(system.database)) as rude:
        rude.setblocking(True)
        await asyncio.to_thread(rude.recv, 1024)
        await asyncio.to_thread(rude.sendall, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.to_thread(rude.recv, 1024) == b""

    requests = await end.consume_queries(prefetch=1)
    asking = asyncio.create_task(end.ask(GetRun(run_id="run-1"), timeout=PATIENCE))
    (delivery,) = await collect(requests, 1)
    await end.answer(delivery.body, RunFound(run=None))
    assert await asking == RunFound(run=None)


async def test_a_client_that_goes_takes_its_subscriptions_along(system: SocketSystem) -> None:
    end = await system.connect()
    subscription = await end.consume_notices("client-1")
    await subscription.watch("run-1")
    assert system.hub.notices.listeners == 2

    await end.close()

    await until(lambda: system.hub.notices.listeners == 0)
