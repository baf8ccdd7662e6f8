"""Subscriptions of RabbitMQ that are stopped and closed at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from aiki.adapters.broker.rabbitmq.subscription import RabbitSubscription
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


async def test_whoever_is_cancelled_while_a_subscription_closes_is_cancelled(system: RabbitSystem) -> None:
    """The driver waits with ``asyncio.wait_for``, which swallows a cancellation in the moment of success."""
    broker = await system.connect()
    subscription = await broker.consume_events(0, prefetch=1)
    assert isinstance(subscription, RabbitSubscription)
    close, under_way = subscription._channel.close, asyncio.Event()

    async def swallow(*_: object, **__: object) -> None:
        under_way.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    subscription._channel.close = swallow  # type: ignore[method-assign]  # of this channel alone
    closing = asyncio.create_task(subscription.close())
    await under_way.wait()

    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(closing, 5)
    subscription._channel.close = close  # type: ignore[method-assign]
    await subscription.close()
