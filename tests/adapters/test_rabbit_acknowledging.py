"""Acknowledgements of RabbitMQ that leave together, and one of which is given up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiki.adapters.broker.rabbitmq.subscription import RabbitSubscription
from aiki.testing.contracts.broker_parts.system import PATIENCE, bodies_of, collect, signal
from tests.adapters.rabbit_system import RabbitSystem


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


class NoRoom(asyncio.Queue[Any]):
    """What a connection writes from while the network takes nothing."""

    def __init__(self) -> None:
        super().__init__(1)
        self.put_nowait(None)
        self.is_asked = asyncio.Event()

    async def put(self, item: Any) -> None:
        self.is_asked.set()
        await super().put(item)


async def test_whoever_gives_up_while_there_is_no_room_takes_nobodys_acknowledgement_along(
    system: RabbitSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await system.connect()
    subscription = await broker.consume_events(0, prefetch=10)
    assert isinstance(subscription, RabbitSubscription)
    await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
    await broker.publish_events(0, [signal(2)], timeout=PATIENCE)
    one, two = await collect(subscription, 2)
    no_room = NoRoom()

    with monkeypatch.context() as patched:
        patched.setattr(subscription._channel, "write_queue", no_room)
        impatient = asyncio.create_task(subscription.acknowledge([one]))
        patient = asyncio.create_task(subscription.acknowledge([two]))
        async with asyncio.timeout(PATIENCE):
            await no_room.is_asked.wait()
    impatient.cancel()
    await patient
    await subscription.close()

    await broker.publish_events(0, [signal(3)], timeout=PATIENCE)
    assert bodies_of(await collect(await broker.consume_events(0, prefetch=10), 1)) == [(signal(3),)]
