"""Processes on a broker in memory, for tests that ask it what they ask every broker."""

from collections.abc import Callable
from typing import Generic, TypeVar

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.ports.broker import Broker
from aiki.testing.contracts.broker import BrokerSystem

__all__ = ["MemorySystem"]

B = TypeVar("B", bound=MemoryBroker)


class MemorySystem(BrokerSystem, Generic[B]):
    """A hub, and the brokers on it that *make* makes."""

    def __init__(self, hub: MemoryHub, make: Callable[[], B]) -> None:
        self.hub = hub
        self.brokers: list[B] = []
        self._make = make

    @property
    def partitions(self) -> int:
        return self.hub.partitions

    async def connect(self) -> B:
        broker = self._make()
        await broker.start()
        self.brokers.append(broker)
        return broker

    async def cut(self, broker: Broker) -> None:
        self.hub.disconnect(self._own(broker))

    async def isolate(self, broker: Broker) -> None:
        self.hub.isolate(self._own(broker))

    async def rejoin(self, broker: Broker) -> None:
        self.hub.rejoin(self._own(broker))

    async def inject(self, queue: str, body: bytes) -> None:
        self.hub.inject(queue, body)

    async def close(self) -> None:
        for broker in self.brokers:
            await broker.close()

    def _own(self, broker: Broker) -> B:
        return next(own for own in self.brokers if own is broker)
