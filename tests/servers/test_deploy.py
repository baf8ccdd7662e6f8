"""What `deploy/` gives to RabbitMQ is understood by a real one."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import ProbableAuthenticationError
from aiormq.exceptions import ChannelAccessRefused

from aiki.testing.servers import RabbitNode

ROOT = Path(__file__).parents[2]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[RabbitNode]:
    """A RabbitMQ with the settings and definitions of `deploy/`, and a password for the worker alone."""
    definitions = tmp_path / "definitions.json"
    subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "write_definitions.py"), str(definitions)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AIKI_WORKER_PASSWORD": "s3cret"},
        check=True,
        timeout=30,
    )
    settings = dict(setting_lines()) | {"load_definitions": str(definitions)}
    with RabbitNode(tmp_path / "rabbit", settings=settings) as node:
        yield node


@pytest.mark.servers
def test_the_deployed_broker_has_the_topology_and_lets_in_who_has_a_password(deployed: RabbitNode) -> None:
    queues = deployed.ctl("list_queues", "--quiet", "name").split()
    asyncio.run(try_what_a_worker_may(deployed))

    assert {"aiki.events.0", "aiki.events.7", "aiki.dead-letters"} <= set(queues)
    assert deployed.evaluate("application:get_env(rabbit, consumer_timeout)") == "{ok, 2592000000}"


async def try_what_a_worker_may(node: RabbitNode) -> None:
    async with await aio_pika.connect(node.url_of("/", user="aiki-worker", password="s3cret")) as connection:
        channel = await connection.channel()
        await channel.declare_queue("user-onboarding@1.0.0", durable=True, arguments={"x-queue-type": "quorum"})
        with pytest.raises(ChannelAccessRefused):
            await channel.declare_queue("aiki.mine", durable=True)

    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(node.url_of("/", user="aiki-operator", password=""))


def setting_lines() -> Iterator[tuple[str, str]]:
    for line in (ROOT / "deploy" / "rabbitmq.conf").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            yield key, value
