"""The priority of a run reaches the broker, which may act on it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aio_pika
import pytest

from aiki.testing.contracts.broker_parts.system import PATIENCE, execute_run
from tests.adapters.rabbit_system import RabbitSystem

QUEUE = "contract@1"


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


@pytest.mark.parametrize(("priority", "seen"), [(0, None), (9, 9)])
async def test_the_order_to_execute_a_run_carries_its_priority(
    system: RabbitSystem, amqp_url: str, priority: int, seen: int | None
) -> None:
    orchestrator = await system.connect()
    await orchestrator.send([replace(execute_run(1, queue=QUEUE), priority=priority)], timeout=PATIENCE)

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue(QUEUE)).get(no_ack=True, timeout=PATIENCE)

    assert message is not None
    # The driver reads a missing priority as 0.
    assert (message.priority or None) == seen
