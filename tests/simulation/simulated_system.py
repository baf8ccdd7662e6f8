"""Processes on a simulated broker, for tests that ask it what they ask every broker."""

from itertools import count
from random import Random

from aiki.adapters.broker.memory import MemoryHub
from aiki.ports.broker import Broker
from aiki.testing.simulation.broker import SimulatedBroker
from aiki.testing.simulation.loop import Process, SimulationLoop
from aiki.testing.simulation.network import Link, Network
from aiki.testing.simulation.world import SimulatedClock
from tests.adapters.memory_system import MemorySystem

__all__ = ["SimulatedSystem"]


class SimulatedSystem(MemorySystem[SimulatedBroker]):
    """A hub, and processes that reach it over a network which takes its time and loses nothing by itself."""

    def __init__(self, loop: SimulationLoop, *, partitions: int = 4) -> None:
        network, names = Network(loop, Random(7)), count(1)
        hub = MemoryHub(clock=SimulatedClock(loop), partitions=partitions)
        super().__init__(hub, lambda: SimulatedBroker(hub, Link(network, Process(f"process-{next(names)}"))))
        self._network = network

    async def cut(self, broker: Broker) -> None:
        own = self._own(broker)
        own.lose_connection("the connection was cut", swallow=self._network.random.random() < 0.5)
        self._network.loop.later(0.01, own.connect)
