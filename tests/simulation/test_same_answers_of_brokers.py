"""The simulated broker answers as the others do, whatever is done to it.

`AIKI_COMPARISONS=50` compares so many scripts, where the suite compares one or two.
"""

import asyncio
import os

import pytest

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.clock import SystemClock
from aiki.testing.contracts.broker import BrokerSystem
from tests.adapters.memory_system import MemorySystem
from tests.adapters.rabbit_system import RabbitSystem
from tests.simulation.same_answers import PARTITIONS, answers_of, simulated_answers

SCRIPTS = int(os.environ.get("AIKI_COMPARISONS", "1"))
STEPS = 100


async def check_the_same_is_answered(system: BrokerSystem, seed: int) -> None:
    expected = await asyncio.to_thread(simulated_answers, seed, steps=STEPS)

    answers = await answers_of(system, seed, steps=STEPS, expected=expected)

    assert answers == expected[: len(answers)], f"seed {seed}"
    assert len(answers) == STEPS


@pytest.mark.parametrize("seed", range(3 * SCRIPTS))
async def test_the_broker_in_memory_answers_as_the_simulated_one(seed: int) -> None:
    hub = MemoryHub(clock=SystemClock(), partitions=PARTITIONS)
    system = MemorySystem(hub, lambda: MemoryBroker(hub))
    try:
        await check_the_same_is_answered(system, seed)
    finally:
        await system.close()


@pytest.mark.parametrize("seed", range(100, 100 + SCRIPTS))
async def test_rabbitmq_answers_as_the_simulated_broker(seed: int, amqp_url: str) -> None:
    system = RabbitSystem(amqp_url)
    try:
        await check_the_same_is_answered(system, seed)
    finally:
        await system.close()
