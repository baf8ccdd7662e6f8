"""Subscriptions to partitions, which are not renewed when they fall silent: they are nudged.

Whoever closes the channel of a partition goes to the end of the line, and the partition
to the next in line. It would wander with each quiet moment. But a partition has one
consumer, which may hold many messages: whatever is sent next is delivered to it, and if
something was lost before, RabbitMQ finds the gap. So something is sent.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.outgoing import NUDGE
from aiki.adapters.broker.rabbitmq.silent import WatchedSubscription
from aiki.adapters.broker.rabbitmq.subscription import Decode, Refuse
from aiki.adapters.broker.rabbitmq.wire import Delivered
from aiki.errors import AikiError, DeliveryLostError
from aiki.observability import get_logger

__all__ = ["PartitionSubscription"]

T = TypeVar("T")

log = get_logger(__name__)


class PartitionSubscription(WatchedSubscription[T]):
    """Deliveries of a queue with a single active consumer. A nudge is acknowledged, and given to nobody."""

    def __init__(
        self,
        channel: Channel,
        *,
        decode: Decode[T],
        refuse: Refuse,
        silence: float,
        nudge: Callable[[], Awaitable[None]],
    ) -> None:
        """Deliver what comes over *channel*; *nudge* sends a nudge to its queue."""
        super().__init__(channel, decode=decode, refuse=refuse, silence=silence)
        self._nudge = nudge
        self._is_active = False
        """Whether this was given anything. Before that, somebody else may be ahead in line."""
        self._is_nudged = False
        self._is_answered = False

    def _arrive(self, delivered: Delivered) -> None:
        self._is_active = self._is_answered = True
        if delivered.body != NUDGE:
            super()._arrive(delivered)
        elif self._lost is None:
            number = self._numbered + delivered.tag
            self._unacknowledged[number] = delivered.consumer
            self._do_beside(self._drop(number))

    async def _drop(self, number: int) -> None:
        with suppress(DeliveryLostError):  # Then it comes again, and may as well.
            await self._acknowledge({number})

    def _look(self, was_silent: bool) -> bool:
        if not (self._is_nudged and was_silent):
            self._is_nudged = False
            return super()._look(was_silent)
        if self._is_active and not (self._is_answered or self._is_stopped):
            self._give_up("RabbitMQ did not deliver what it had confirmed")
        return False

    async def _fell_silent(self) -> None:
        self._is_nudged, self._is_answered = True, False
        try:
            await self._nudge()
        except AikiError as error:
            log.debug("partition.not_nudged", reason=error.message)
            self._is_nudged = False
            self._watch.stir()  # Once more, after a while.
        else:
            self._watch.look_later()
