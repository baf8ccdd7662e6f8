"""The broker of the simulation keeps the contract of all brokers, in virtual time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiki.testing.contracts.broker import BrokerContract
from aiki.testing.simulation.loop import SimulationLoop
from tests.simulation.simulated_system import SimulatedSystem

LOOP = SimulationLoop


class TestSimulatedBroker(BrokerContract):
    @pytest.fixture
    async def system(self) -> AsyncIterator[SimulatedSystem]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulationLoop)
        system = SimulatedSystem(loop)
        yield system
        await system.close()
