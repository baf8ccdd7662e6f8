"""The subscriber: makes subscriptions over whatever link there is.

Subscribing waits for a link, however long that takes, and starts again on the next
one if the link goes meanwhile. What was subscribed is never moved to another link:
it ends, and says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar

from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.declaring import ensure
from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.subscription import RabbitSubscription
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.errors import BrokerUnavailableError
from broker_topology import Topology

__all__ = ["Subscriber"]

S = TypeVar("S", bound=RabbitSubscription[Any])


class Subscriber:
    """Subscribes, and closes what is left at the end."""

    def __init__(self, supervisor: Supervisor, topology: Topology) -> None:
        self._supervisor = supervisor
        self._topology = topology
        self._subscriptions: set[RabbitSubscription[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def subscribe(
        self, make: Callable[[Channel], S], queues: Collection[str], *, prefetch: int, layout: Topology | None = None
    ) -> S:
        """Subscribe to *queues*; those of *layout* are declared if they are missing.

        Raises:
            BrokerUnavailableError: the broker was closed, or does not let us although it is there.
            ConfigurationError: we may not consume from there, or declare what is missing.
        """

        async def begin(link: Link) -> S:
            if layout is not None:
                await _ensure_once(link, layout)
            subscription = make(await link.consuming_channel())
            await subscription.begin(link, queues, prefetch=prefetch)
            return subscription

        return await self._apart(self._subscribe(begin))

    async def subscribe_privately(
        self, make: Callable[[Channel], S], private: Callable[[], Topology], *, prefetch: int
    ) -> S:
        """Subscribe to a queue that *private* lays out anew for each try, and that goes with the link.

        Raises as ``subscribe``.
        """

        async def begin(link: Link) -> S:
            layout = private()
            subscription = make(await link.consuming_channel())
            await subscription.begin(link, [layout.queues[0].name], prefetch=prefetch, private=layout)
            return subscription

        return await self._apart(self._subscribe(begin))

    async def close(self) -> None:
        """Close every subscription that is left."""
        await asyncio.gather(*(subscription.close() for subscription in tuple(self._subscriptions)))
        await asyncio.gather(*self._closing)

    async def _apart(self, work: Coroutine[Any, Any, S]) -> S:
        """Await *work* in a task of its own, so that the driver cannot swallow the caller's cancellation.

        A subscription that is there when nobody waits for it any more is closed.
        """
        task = asyncio.create_task(work, name="aiki-rabbitmq-subscribe")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(self._give_back)
            raise

    def _give_back(self, task: asyncio.Task[S]) -> None:
        if not task.cancelled() and task.exception() is None:
            closing = asyncio.create_task(task.result().close(), name="aiki-rabbitmq-give-back")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _subscribe(self, begin: Callable[[Link], Awaitable[S]]) -> S:
        mended = False
        while True:
            link = await self._supervisor.wait()
            try:
                subscription = await begin(link)
                break
            except BrokerUnavailableError:
                if await link.is_gone():
                    continue
                if mended:
                    raise
                # The link is well, so a queue is missing: somebody deleted it.
                mended = True
                await ensure(link, self._topology)
        self._subscriptions.add(subscription)
        subscription.when_lost(lambda: self._subscriptions.discard(subscription))
        return subscription


async def _ensure_once(link: Link, layout: Topology) -> None:
    names = {queue.name for queue in layout.queues}
    if not names <= link.declared:
        await ensure(link, layout)
        link.declared |= names
