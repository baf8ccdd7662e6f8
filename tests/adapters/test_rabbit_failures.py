"""A RabbitMQ that is killed, frozen, or out of memory, and a broker that lives through it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.engine.queries import GetRun
from aiki.errors import BrokerUnavailableError, DeliveryLostError, PublishUncertainError
from aiki.testing.contracts.broker_parts.system import PATIENCE, collect, signal, until
from aiki.testing.servers import RabbitNode
from tests.adapters.rabbit_system import PARTITIONS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def broker(dedicated_rabbit: RabbitNode) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(dedicated_rabbit.url, partitions=PARTITIONS, heartbeat=1, connect_timeout=2.0)
    await broker.start()
    yield broker
    await broker.close()


async def test_a_broker_that_is_killed_and_started_again_has_kept_what_it_confirmed(
    dedicated_rabbit: RabbitNode, broker: RabbitBroker
) -> None:
    subscription = await broker.consume_events(0, prefetch=10)
    await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
    await collect(subscription, 1)
    waiting = asyncio.create_task(subscription.receive())
    await asyncio.to_thread(dedicated_rabbit.settle)

    await asyncio.to_thread(dedicated_rabbit.kill)

    with pytest.raises(DeliveryLostError):
        await waiting
    assert not broker.is_connected
    with pytest.raises(BrokerUnavailableError, match="nothing was sent"):
        await broker.publish_events(0, [signal(2)], timeout=0.2)
    publishing = asyncio.create_task(broker.publish_events(0, [signal(3)], timeout=60))
    subscribing = asyncio.create_task(broker.consume_events(0, prefetch=10))

    await asyncio.to_thread(dedicated_rabbit.start)

    await publishing
    taken = await collect(await subscribing, 2)
    assert [delivery.body for delivery in taken] == [(signal(1),), (signal(3),)]
    assert taken[0].redelivered


async def test_a_broker_that_hangs_is_given_up_and_found_again(
    dedicated_rabbit: RabbitNode, broker: RabbitBroker
) -> None:
    subscription = await broker.consume_events(0, prefetch=10)
    waiting = asyncio.create_task(subscription.receive())
    await asyncio.sleep(0)

    dedicated_rabbit.freeze()
    try:
        with pytest.raises(PublishUncertainError):
            await broker.publish_events(0, [signal(1)], timeout=0.5)
        # Three heartbeats of a second each, and a little: the driver counts (1 + 1) * 3.
        async with asyncio.timeout(20):
            with pytest.raises(DeliveryLostError):
                await waiting
        with pytest.raises(BrokerUnavailableError):
            await broker.publish_events(0, [signal(2)], timeout=0.5)
    finally:
        dedicated_rabbit.thaw()

    await broker.publish_events(0, [signal(3)], timeout=30)
    subscription = await broker.consume_events(0, prefetch=10)
    taken: set[str] = set()
    while "event-3" not in taken:
        taken |= {event.id for delivery in await collect(subscription, 1) for event in delivery.body}
    assert "event-2" not in taken


async def test_a_broker_without_memory_is_waited_for_and_named(
    dedicated_rabbit: RabbitNode, broker: RabbitBroker
) -> None:
    subscription = await broker.consume_events(0, prefetch=10)
    await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
    held = await collect(subscription, 1)
    await asyncio.to_thread(dedicated_rabbit.ctl, "set_vm_memory_high_watermark", "0")

    # RabbitMQ says that it takes nothing when it is first sent something: that one may have arrived.
    with pytest.raises(PublishUncertainError, match="memory or disk"):
        await broker.publish_events(0, [signal(2)], timeout=1.0)
    with pytest.raises(BrokerUnavailableError, match="memory or disk"):
        await broker.publish_events(0, [signal(3)], timeout=0.2)
    with pytest.raises(BrokerUnavailableError, match="memory or disk"):
        await broker.ask(GetRun(run_id="run-1"), timeout=0.2)
    # What was delivered before can be acknowledged: this travels over the other connection.
    await subscription.acknowledge(held)
    assert broker.is_connected
    publishing = asyncio.create_task(broker.publish_events(0, [signal(4)], timeout=60))

    await asyncio.to_thread(dedicated_rabbit.ctl, "set_vm_memory_high_watermark", "0.9")

    await publishing
    taken: list[str] = []
    while "event-4" not in taken:
        taken += [event.id for delivery in await collect(subscription, 1) for event in delivery.body]
    assert taken in (["event-2", "event-4"], ["event-4"])


async def test_connections_that_an_operator_closes_are_made_again_at_once(
    dedicated_rabbit: RabbitNode, broker: RabbitBroker
) -> None:
    for number in range(3):
        subscription = await broker.consume_events(0, prefetch=10)
        await asyncio.to_thread(dedicated_rabbit.ctl, "close_all_connections", "for a test")
        with pytest.raises(DeliveryLostError, match="for a test"):
            await subscription.receive()
        await until(lambda: broker.is_connected)
        await broker.publish_events(1, [signal(number)], timeout=PATIENCE)
