"""Several queues in one subscription, sharing one limit on what is held."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.sharing import Cancel, Sharing
from aiki.adapters.broker.rabbitmq.subscription import Arrival, RabbitSubscription, Refuse
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.errors import AikiError

__all__ = ["SharedSubscription"]

T = TypeVar("T")

# Where queues take turns: how long each has its consumer. Long enough to take what is there.
TURN_SECONDS = 0.05


class SharedSubscription(RabbitSubscription[T]):
    """Deliveries of several queues, the limit dealt out to where it is used (see ``Sharing``)."""

    def __init__(self, channel: Channel, *, decode: Callable[[Arrival], T], refuse: Refuse) -> None:
        super().__init__(channel, decode=decode, refuse=refuse)
        self._sharing = Sharing((), 0)
        self._uneven = asyncio.Event()
        self._is_stopping = False
        self._dealer: asyncio.Task[None] | None = None

    async def _start(self, queues: Collection[str], prefetch: int) -> None:
        self._sharing = Sharing(queues, prefetch)
        await self._deal_out()
        self._dealer = self._do_beside(self._keep_dealing())

    async def _cancel_all(self) -> None:
        self._is_stopping = True
        self._uneven.set()
        if self._dealer is not None:
            await asyncio.wait({self._dealer})  # Not cancelled: a call that is given up closes the channel.
        await super()._cancel_all()

    def _on_delivered(self, consumer: str) -> None:
        self._sharing.delivered(consumer)
        self._uneven.set()

    def _on_acknowledged(self, consumer: str) -> None:
        self._sharing.acknowledged(consumer)
        self._uneven.set()

    async def _keep_dealing(self) -> None:
        try:
            with talking("consume"):
                await self._deal_until_stopped()
        except AikiError as error:
            self.lose(error.message)

    async def _deal_until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        turn_ends = loop.time() + TURN_SECONDS
        while not self._is_stopping and self._lost is None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(turn_ends if self._sharing.is_crowded else None):
                    await self._uneven.wait()
            self._uneven.clear()
            if loop.time() >= turn_ends:
                turn_ends = loop.time() + TURN_SECONDS
                if (turn := self._sharing.next_turn()) is not None:
                    await self._cancel(turn.tag)
            await self._deal_out()

    async def _deal_out(self) -> None:
        while not self._is_stopping and (move := self._sharing.next_move()) is not None:
            if isinstance(move, Cancel):
                await self._cancel(move.tag)
            else:
                self._sharing.consumed(move)
                await self._consume(move.tag, move.queue, move.credit)

    async def _cancel(self, consumer: str) -> None:
        await super()._cancel(consumer)
        self._sharing.cancelled(consumer)
