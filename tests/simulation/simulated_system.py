"""Processes on a simulated broker, for tests that ask it what they ask every broker."""

from itertools import count
from random import Random

from aiki.adapters.broker.memory import MemoryHub
from aiki.ports.broker import Broker
from aiki.testing.contracts.broker import BrokerSystem
from aiki.testing.simulation.broker import SimulatedBroker
from aiki.testing.simulation.loop import Process, SimulationLoop
from aiki.testing.simulation.network import Link, Network
from aiki.testing.simulation.world import SimulatedClock

__all__ = ["SimulatedSystem"]


class SimulatedSystem(BrokerSystem):
    """A hub, and processes that reach it over a network which takes its time and loses nothing by itself."""

    def __init__(self, loop: SimulationLoop, *, partitions: int = 4) -> None:
        self.hub = MemoryHub(clock=SimulatedClock(loop), partitions=partitions)
        self.brokers: list[SimulatedBroker] = []
        self._network = Network(loop, Random(7))
        self._names = count(1)

    @property
    def partitions(self) -> int:
        return self.hub.partitions

    async def connect(self) -> SimulatedBroker:
        broker = SimulatedBroker(self.hub, Link(self._network, Process(f"process-{next(self._names)}")))
        await broker.start()
        self.brokers.append(broker)
        return broker

    async def cut(self, broker: Broker) -> None:
        own = self._own(broker)
        own.lose_connection("the connection was cut", swallow=self._network.random.random() < 0.5)
        self._network.loop.later(0.01, own.connect)

    async def isolate(self, broker: Broker) -> None:
        self.hub.isolate(self._own(broker))

    async def rejoin(self, broker: Broker) -> None:
        self.hub.rejoin(self._own(broker))

    async def inject(self, queue: str, body: bytes) -> None:
        self.hub.inject(queue, body)

    async def close(self) -> None:
        for broker in self.brokers:
            await broker.close()

    def _own(self, broker: Broker) -> SimulatedBroker:
        return next(own for own in self.brokers if own is broker)
