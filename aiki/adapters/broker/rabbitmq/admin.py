"""For operators: apply the topology, compare it, look at the queues. Over AMQP alone, without the management API."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiki.adapters.broker.rabbitmq.declaring import RPC_SECONDS, declare, differences
from aiki.adapters.broker.rabbitmq.link import Link, addresses_of
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.errors import BrokerUnavailableError
from broker_topology import PARTITIONS_DEFAULT, Topology, topology

__all__ = ["BrokerReport", "QueueReport", "apply_topology", "check_topology", "delete_queue", "inspect_broker"]

HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class QueueReport:
    """What the broker says of one queue. Counts of quorum queues may be some seconds old."""

    name: str
    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class BrokerReport:
    """What the broker says of itself and of the queues that were asked for."""

    version: tuple[int, ...]
    queues: tuple[QueueReport, ...]
    missing: tuple[str, ...]


async def apply_topology(url: str, *, partitions: int = PARTITIONS_DEFAULT, more: Topology | None = None) -> None:
    """Declare the topology, and *more* such as queues of workflows; what is there and equal stays as it is.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
        ConfigurationError: something is there with other arguments, or the user may not declare it.
    """
    async with _link(url) as link:
        await declare(link, topology(partitions) + (more or Topology()))


async def check_topology(url: str, *, partitions: int = PARTITIONS_DEFAULT, more: Topology | None = None) -> list[str]:
    """Tell in what the broker differs from the topology and *more*, one line each; empty when nothing does.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    async with _link(url) as link:
        return await differences(link, topology(partitions) + (more or Topology()))


async def inspect_broker(url: str, queues: Sequence[str]) -> BrokerReport:
    """Look at the broker and at *queues*.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
    """
    async with _link(url) as link:
        found = [await _look_at(link, queue) for queue in queues]
        return BrokerReport(
            link.version,
            tuple(report for report in found if isinstance(report, QueueReport)),
            tuple(name for name in found if isinstance(name, str)),
        )


async def delete_queue(url: str, queue: str) -> None:
    """Delete *queue* with all that is in it. One that is not there is no error.

    Raises:
        BrokerUnavailableError: the broker cannot be reached.
        ConfigurationError: the user may not delete it.
    """
    async with _link(url) as link:
        channel = await link.consuming_channel()
        with talking(f"delete queue {queue}"):
            await channel.queue_delete(queue, timeout=RPC_SECONDS)


async def _look_at(link: Link, queue: str) -> QueueReport | str:
    channel = await link.consuming_channel()
    try:
        with talking(f"look at queue {queue}"):
            found = await channel.queue_declare(queue, passive=True, timeout=RPC_SECONDS)
            await channel.close(timeout=RPC_SECONDS)
    except BrokerUnavailableError:
        if link.is_lost:
            raise
        return queue
    return QueueReport(queue, found.message_count or 0, found.consumer_count or 0)


@asynccontextmanager
async def _link(url: str) -> AsyncIterator[Link]:
    addresses = addresses_of(url)
    for others, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        try:
            link = await Link.open(
                address, name="aiki (operator)", heartbeat=HEARTBEAT_SECONDS, timeout=CONNECT_SECONDS
            )
            break
        except BrokerUnavailableError:
            if others == 0:
                raise
    try:
        yield link
    finally:
        await link.close("done")
