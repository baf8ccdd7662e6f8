"""What becomes of orders whose holder is connected to a node of RabbitMQ that is killed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.engine.commands import WorkerCommand
from aiki.ports.broker import Delivery, Subscription
from aiki.testing.chaos.cluster import Broker, make_brokers, start_together
from aiki.testing.contracts.broker_parts.system import execute_run

PATIENCE = 60.0
PARTITIONS = 1


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Sequence[Broker]]:
    nodes = make_brokers(tmp_path, 3)
    nodes[0].epmd.start()
    try:
        await start_together(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        nodes[0].epmd.kill()


async def taken(subscription: Subscription[WorkerCommand], count: int) -> list[Delivery[WorkerCommand]]:
    """Take *count* orders."""
    deliveries: list[Delivery[WorkerCommand]] = []
    async with asyncio.timeout(PATIENCE):
        while len(deliveries) < count:
            deliveries += await subscription.receive()
    return deliveries


@pytest.mark.servers
@pytest.mark.timeout(180)
async def test_all_orders_come_back_from_a_worker_whose_node_is_killed(nodes: Sequence[Broker]) -> None:
    queues = [f"shared-{number}@1" for number in range(3)]
    async with AsyncExitStack() as stack:
        one, other = (
            RabbitBroker(nodes[1].url, partitions=PARTITIONS),
            RabbitBroker(nodes[2].url, partitions=PARTITIONS),
        )
        for broker in (one, other):
            await broker.start()
            stack.push_async_callback(broker.close)
        going_on, stopped = [await one.consume_commands(queues, prefetch=30) for _ in range(2)]

        # The limit goes from queue to queue while orders are held; one of both is then told to take no more.
        for queue, count in zip(queues, (6, 20, 30), strict=True):
            await other.send([execute_run(number, queue=queue) for number in range(count)], timeout=PATIENCE)
            await taken_by_both(going_on, stopped, count)
        await stopped.stop()
        # RabbitMQ writes down every half second which quorum queues there are.
        await asyncio.gather(*(asyncio.to_thread(node.settle) for node in nodes))
        nodes[1].kill()

        heir = await other.consume_commands(queues, prefetch=100)
        back = await taken(heir, 56)

    assert all(delivery.redelivered for delivery in back)
    assert sorted(delivery.body.queue for delivery in back) == sorted(
        6 * queues[:1] + 20 * queues[1:2] + 30 * queues[2:]
    )


async def taken_by_both(one: Subscription[WorkerCommand], other: Subscription[WorkerCommand], count: int) -> None:
    """Wait until two subscriptions have taken *count* orders, no matter which of them how many."""
    left = count
    async with asyncio.timeout(PATIENCE):
        waiting = {asyncio.ensure_future(each.receive()): each for each in (one, other)}
        while left > 0:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                subscription = waiting.pop(future)
                left -= len(future.result())
                waiting[asyncio.ensure_future(subscription.receive())] = subscription
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
