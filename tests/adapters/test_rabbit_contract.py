"""The broker's contract on a real RabbitMQ."""

from collections.abc import AsyncIterator

import pytest

from aiki.testing.contracts.broker import BrokerContract
from tests.adapters.rabbit_system import RabbitSystem


class TestRabbitBroker(BrokerContract):
    @pytest.fixture
    async def system(self, amqp_url: str) -> AsyncIterator[RabbitSystem]:
        system = RabbitSystem(amqp_url)
        yield system
        await system.close()
