"""A real RabbitMQ for tests: brokers whose connections can be cut, each behind a proxy of its own."""

import asyncio
from contextlib import suppress
from typing import Any

import aio_pika
from yarl import URL

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.ports.broker import Broker
from aiki.testing.contracts.broker import BrokerSystem

__all__ = ["Proxy", "RabbitSystem"]

PARTITIONS = 3


class Proxy:
    """Passes bytes on to a server, until it is told not to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[Any]] = set()
        self.is_open = True
        self.is_mute = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Drop every connection as a failing network does: without a word."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        self.is_open = False
        self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        with suppress(OSError):
            there = await asyncio.open_connection(*self._target)
            for source, sink, is_answer in ((reader, there[1], False), (there[0], writer, True)):
                self._writers.add(sink)
                task = asyncio.create_task(self._pass_on(source, sink, is_answer))
                self._passing.add(task)
                task.add_done_callback(self._passing.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if is_answer and self.is_mute:
                    continue
                sink.write(data)
                await sink.drain()
            sink.close()
            await sink.wait_closed()
        sink.transport.abort()
        self._writers.discard(sink)


class RabbitSystem(BrokerSystem):
    """A virtual host, and brokers on it."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)
        self._proxies: dict[Broker, Proxy] = {}

    @property
    def partitions(self) -> int:
        return PARTITIONS

    async def connect(self, **options: Any) -> RabbitBroker:
        proxy = Proxy(str(self.url.host), self.url.port or 5672)
        await proxy.start()
        url = str(self.url.with_host("127.0.0.1").with_port(proxy.port))
        broker = RabbitBroker(url, partitions=PARTITIONS, **options)
        self._proxies[broker] = proxy
        await broker.start()
        return broker

    async def cut(self, broker: Broker) -> None:
        self._proxies[broker].cut()

    def mute(self, broker: Broker, *, is_mute: bool) -> None:
        """Let nothing of what the server says reach *broker*."""
        self._proxies[broker].is_mute = is_mute

    async def isolate(self, broker: Broker) -> None:
        self._proxies[broker].is_open = False
        self._proxies[broker].cut()

    async def rejoin(self, broker: Broker) -> None:
        self._proxies[broker].is_open = True

    async def inject(self, queue: str, body: bytes) -> None:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            await channel.default_exchange.publish(aio_pika.Message(body), queue, timeout=10)

    async def close(self) -> None:
        for broker, proxy in self._proxies.items():
            await broker.close()
            await proxy.close()
