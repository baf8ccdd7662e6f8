"""Declaring: the topology, from broker_topology into a broker.

First it is looked whether everything is there, which needs no permission; only
what is missing is declared. So a client that may configure nothing works with a
broker that an operator has set up, and a developer's empty broker sets itself up.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity

from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.trouble import reason_of, talking
from aiki.errors import AikiError, BrokerUnavailableError, ConfigurationError
from broker_topology import Queue, Topology

__all__ = ["declare", "declare_on", "declare_once", "differences", "ensure", "ready_messages"]

RPC_SECONDS = 15.0


@asynccontextmanager
async def _channel(link: Link) -> AsyncIterator[Channel]:
    """Open a channel of its own: a declaration that is refused closes it, and nothing else."""
    channel = await link.consuming_channel()
    try:
        yield channel
    finally:
        with suppress(AikiError, ChannelInvalidStateError), talking("close a channel"):
            await channel.close(timeout=RPC_SECONDS)


async def ensure(link: Link, topology: Topology) -> None:
    """See to it that *topology* is there; what exists is not touched.

    Raises:
        BrokerUnavailableError: the link is gone.
        ConfigurationError: something is missing that we may not declare.
    """
    if not await _is_there(link, topology):
        await declare(link, topology)


async def declare(link: Link, topology: Topology) -> None:
    """Declare all of *topology*; what is there already, and equal, stays as it is.

    Raises:
        BrokerUnavailableError: the link is gone.
        ConfigurationError: something is there with other arguments, or we may not declare it.
    """
    async with _channel(link) as channel:
        with talking("declare what Aiki needs in RabbitMQ"):
            await declare_on(channel, topology)


async def declare_once(link: Link, name: str, topology: Topology) -> None:
    """Declare what is first needed now, unless this link did so before. Raises as ``declare``."""
    if name not in link.declared:
        await declare(link, topology)
        link.declared.add(name)


async def declare_on(channel: Channel, topology: Topology, *, exclusive: bool = False) -> None:
    """Declare *topology* over *channel*. Raises what the driver raises."""
    for exchange in topology.exchanges:
        await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, durable=True, timeout=RPC_SECONDS)
    for queue in topology.queues:
        await channel.queue_declare(
            queue.name,
            durable=queue.durable,
            exclusive=exclusive,
            auto_delete=exclusive,
            arguments=dict(queue.arguments),
            timeout=RPC_SECONDS,
        )
    for binding in topology.bindings:
        await channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, timeout=RPC_SECONDS)


async def ready_messages(link: Link, queue: str, *, timeout: float) -> int | None:
    """Look how many messages of *queue* wait to be delivered; ``None`` if there is no such queue.

    Raises:
        BrokerUnavailableError: the link is gone, or the queue has no leader that could tell.
    """
    async with _channel(link) as channel:
        try:
            with talking(f"look at queue {queue}"):
                found = await channel.queue_declare(queue, passive=True, timeout=min(timeout, RPC_SECONDS))
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                return None
            raise
    return found.message_count or 0


async def _is_there(link: Link, topology: Topology) -> bool:
    async with _channel(link) as channel:
        try:
            with talking("look for what Aiki needs in RabbitMQ"):
                for exchange in topology.exchanges:
                    await channel.exchange_declare(exchange.name, passive=True, timeout=RPC_SECONDS)
                for queue in topology.queues:
                    await channel.queue_declare(queue.name, passive=True, timeout=RPC_SECONDS)
        except BrokerUnavailableError:
            if link.is_lost:
                raise
            return False
    return True


async def differences(link: Link, topology: Topology) -> list[str]:
    """Tell in what the broker differs from *topology*, one line each; nothing missing is made."""
    found: list[str] = []
    for exchange in topology.exchanges:
        if not await _is_there(link, Topology(exchanges=(exchange,))):
            found.append(f"exchange {exchange.name} is missing")
        else:
            found += await _difference(link, Topology(exchanges=(exchange,)), f"exchange {exchange.name}")
    for queue in topology.queues:
        found += await _queue_differences(link, queue)
    return found


async def _queue_differences(link: Link, queue: Queue) -> list[str]:
    alone = Topology(queues=(queue,))
    if not await _is_there(link, alone):
        return [f"queue {queue.name} is missing"]
    return await _difference(link, alone, f"queue {queue.name}")


async def _difference(link: Link, one: Topology, name: str) -> list[str]:
    """Declare what exists: the broker compares, and refuses what is not equal."""
    try:
        await declare(link, one)
    except ConfigurationError as error:
        return [f"{name} differs: {reason_of(error.__cause__)}"]
    return []
