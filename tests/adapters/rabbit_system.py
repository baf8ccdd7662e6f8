"""A real RabbitMQ for tests: brokers whose connections can be cut, each behind a gate of its own."""

from typing import Any

import aio_pika
from yarl import URL

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.ports.broker import Broker
from aiki.testing.chaos.gates import Gate, Way
from aiki.testing.contracts.broker import BrokerSystem

__all__ = ["RabbitSystem"]

PARTITIONS = 3


class RabbitSystem(BrokerSystem):
    """A virtual host, and brokers on it."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)
        self._gates: dict[Broker, Gate] = {}

    @property
    def partitions(self) -> int:
        return PARTITIONS

    async def connect(self, **options: Any) -> RabbitBroker:
        gate = await Gate(self.url.port or 5672).start()
        url = str(self.url.with_host("127.0.0.1").with_port(gate.port))
        broker = RabbitBroker(url, partitions=PARTITIONS, **options)
        self._gates[broker] = gate
        await broker.start()
        return broker

    async def cut(self, broker: Broker) -> None:
        self._gates[broker].cut()

    def mute(self, broker: Broker, *, is_mute: bool) -> None:
        """Let nothing of what the server says reach *broker* meanwhile."""
        self._gates[broker].hold(Way.BACK if is_mute else Way(0))

    async def isolate(self, broker: Broker) -> None:
        self._gates[broker].shut()

    async def rejoin(self, broker: Broker) -> None:
        self._gates[broker].reopen()

    async def inject(self, queue: str, body: bytes) -> None:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            await channel.default_exchange.publish(aio_pika.Message(body), queue, timeout=10)

    async def close(self) -> None:
        for broker, gate in self._gates.items():
            await broker.close()
            await gate.close()
