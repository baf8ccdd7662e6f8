"""Subscriptions that do something when they fall silent, because a broker loses deliveries.

When the leader of a quorum queue changes, a delivery may be lost between the queue
and the channel of its consumer. The queue counts it as delivered. The channel finds
out with the next delivery to the same consumer, from a gap in their numbers. Where
nothing else comes, or the consumer may hold no more than that one message, the message
is with nobody, for as long as its channel lives (docs/decisions/0020).

So what was opened, or was given something, and is silent after that, looks once for
what may have been lost. Whoever is idle then stays idle.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import TypeVar

from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.silence import Watch
from aiki.adapters.broker.rabbitmq.subscription import CLOSE_SECONDS, Decode, RabbitSubscription, Refuse
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.adapters.broker.rabbitmq.wire import Delivered
from aiki.errors import AikiError
from aiki.ports.broker import Delivery
from broker_topology import Topology

__all__ = ["RenewedSubscription", "WatchedSubscription"]

T = TypeVar("T")


class WatchedSubscription(RabbitSubscription[T]):
    """Deliveries, and what is done once they have ended."""

    def __init__(self, channel: Channel, *, decode: Decode[T], refuse: Refuse, silence: float) -> None:
        """Deliver what comes over *channel*. Nothing for *silence* seconds is silence, or for a little longer."""
        super().__init__(channel, decode=decode, refuse=refuse)
        self._watch = Watch(silence, self._look)
        self._is_stopped = False
        self.when_lost(self._watch.end)

    async def begin(
        self, link: Link, queues: Collection[str], *, prefetch: int, private: Topology | None = None
    ) -> None:
        """Consume, and watch. Raises as ``RabbitSubscription.begin``."""
        await super().begin(link, queues, prefetch=prefetch, private=private)
        self._watch.begin()  # The first delivery is lost as easily as any other.

    async def acknowledge(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Acknowledge; silence begins after that."""
        self._watch.stir()
        await super().acknowledge(deliveries)

    async def stop(self) -> None:
        """Cancel the consumers; the channel stays, for what was delivered."""
        self._is_stopped = True
        await super().stop()

    def _arrive(self, delivered: Delivered) -> None:
        self._watch.stir()
        super()._arrive(delivered)

    def _look(self, was_silent: bool) -> bool:
        """See whether this fell silent. What is held is being worked on, and must not be disturbed."""
        if self._is_stopped or self._lost is not None:
            return False
        if not was_silent or self._unacknowledged:
            return True
        self._do_beside(self._fell_silent())
        return False

    @abstractmethod
    async def _fell_silent(self) -> None:
        """Have come again what was lost on its way here, if anything was."""


class RenewedSubscription(WatchedSubscription[T]):
    """Deliveries over a channel that is replaced when they have ended.

    With the one before, all that the broker believes to be here goes back to its queue. It comes again, marked as
    redelivered, and so does what is on its way in this very moment.
    """

    def __init__(self, channel: Channel, *, decode: Decode[T], refuse: Refuse, silence: float) -> None:
        super().__init__(channel, decode=decode, refuse=refuse, silence=silence)
        self._changing = asyncio.Lock()
        self._is_between_channels = False
        self._latest = 0

    async def begin(
        self, link: Link, queues: Collection[str], *, prefetch: int, private: Topology | None = None
    ) -> None:
        """Consume, and watch. Raises as ``RabbitSubscription.begin``."""
        self._link, self._sources, self._prefetch = link, tuple(queues), prefetch
        await super().begin(link, queues, prefetch=prefetch, private=private)

    async def stop(self) -> None:
        """Cancel the consumers, of the next channel if there is going to be one."""
        self._is_stopped = True
        async with self._changing:
            await super().stop()

    def _arrive(self, delivered: Delivered) -> None:
        if self._is_between_channels:
            return
        self._latest = self._numbered + delivered.tag
        super()._arrive(delivered)

    async def _fell_silent(self) -> None:
        async with self._changing:
            if self._unacknowledged or self._is_stopped:
                self._watch.look_later()
                return
            try:
                with talking("renew a subscription"):
                    await self._renew()
            except AikiError as error:
                self._give_up(error.message)

    async def _renew(self) -> None:
        """Go over to another channel. Raises what the driver raises."""
        self._is_between_channels = True
        await self._leave()
        self._use(await self._link.consuming_channel())
        self._is_between_channels = False
        await self._open(self._link, self._sources, self._prefetch)

    async def _leave(self) -> None:
        """Close the channel without ending the subscription."""
        self._closing.remove_done_callback(self._on_closed)
        await self._channel.close(timeout=CLOSE_SECONDS)
        self._queues.clear()
        self._numbered = self._latest
