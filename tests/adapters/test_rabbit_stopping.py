"""Subscriptions of RabbitMQ that are stopped and closed at the same time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiki.errors import DeliveryLostError
from tests.adapters.rabbit_system import RabbitSystem


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


async def test_whoever_stops_what_somebody_else_closes_is_told_and_not_cancelled(system: RabbitSystem) -> None:
    broker = await system.connect()
    subscription = await broker.consume_commands([f"closing-{number}@1" for number in range(5)], prefetch=1)

    stopping = asyncio.create_task(subscription.stop())
    await asyncio.sleep(0)  # It has begun.
    await subscription.close()

    with pytest.raises(DeliveryLostError):
        await stopping
