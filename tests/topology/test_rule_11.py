"""Rule 11 of the design: event queues never give up a message by counting its deliveries."""

from collections.abc import AsyncIterator

import pytest

from aiki.testing.contracts.broker_parts.system import PATIENCE, bodies_of, collect, signal
from broker_topology import partition_queue, topology
from tests.adapters.rabbit_system import RabbitSystem

# What RabbitMQ 4.x takes for a limit where none is set.
LIMIT_OF_4 = 20


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


def test_rule_11_the_delivery_limit_of_event_queues_is_practically_infinite() -> None:
    queues = {queue.name: queue.arguments for queue in topology().queues}

    for partition in range(8):
        limit = queues[partition_queue(partition)]["x-delivery-limit"]
        assert isinstance(limit, int)
        assert limit >= 1_000_000_000


async def test_rule_11_an_event_that_keeps_coming_back_is_still_there_and_still_the_first(
    system: RabbitSystem,
) -> None:
    broker = await system.connect()
    await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
    await broker.publish_events(0, [signal(2)], timeout=PATIENCE)

    for _ in range(LIMIT_OF_4 + 5):
        subscription = await broker.consume_events(0, prefetch=10)
        assert bodies_of(await collect(subscription, 2)) == [(signal(1),), (signal(2),)]
        await subscription.close()
