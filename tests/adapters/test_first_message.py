"""No message waits for a schema to be built: a broker builds them all when it starts."""

import subprocess
import sys

import pytest

# In a process of its own: in this one they may have been built by any other test.
PROGRAM = """
import asyncio
from contextlib import suppress

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.clock import SystemClock
from aiki.codec import envelope
from aiki.codec.messages import build_schemas
from aiki.errors import BrokerUnavailableError

built = []
compile_schema = envelope.compile_schema
envelope.compile_schema = lambda form, limits: built.append(form.__name__) or compile_schema(form, limits)


async def start() -> None:
    broker = {broker}
    assert not built
    with suppress(BrokerUnavailableError):
        await broker.start()
    await broker.close()


asyncio.run(start())
before = list(built)
build_schemas()
print(len(before), len(built) - len(before))
"""


@pytest.mark.parametrize(
    "broker",
    ["MemoryBroker(MemoryHub(clock=SystemClock()))", "RabbitBroker('amqp://localhost:1', partitions=1, name='first')"],
    ids=["memory", "rabbitmq"],
)
def test_a_broker_that_starts_leaves_no_schema_to_the_first_message(broker: str) -> None:
    code = PROGRAM.replace("{broker}", broker)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["7", "0"], done.stderr
