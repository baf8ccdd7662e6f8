"""Several queues in one subscription, sharing one limit on what is held."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.declaring import RPC_SECONDS
from aiki.adapters.broker.rabbitmq.frames import cancel_frame
from aiki.adapters.broker.rabbitmq.sharing import Cancel, Sharing
from aiki.adapters.broker.rabbitmq.silent import RenewedSubscription
from aiki.adapters.broker.rabbitmq.subscription import Decode, Refuse
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.errors import AikiError

__all__ = ["SharedSubscription"]

T = TypeVar("T")

# Where queues take turns: how long each has its consumer. Long enough to take what is there.
TURN_SECONDS = 0.05


class SharedSubscription(RenewedSubscription[T]):
    """Deliveries of several queues, the limit dealt out to where it is used (see ``Sharing``).

    As long as anything is held the channel stays, and with it what was lost on its way to an idle place. But such a
    place would keep its queue from getting another one, so it is not relied on for ever.
    """

    def __init__(self, channel: Channel, *, decode: Decode[T], refuse: Refuse, silence: float) -> None:
        super().__init__(channel, decode=decode, refuse=refuse, silence=silence)
        self._sharing = Sharing((), 0)
        self._uneven = asyncio.Event()
        self._is_dealt_out = asyncio.Event()
        self._dealer: asyncio.Task[None] | None = None

    async def _start(self, queues: Collection[str], prefetch: int) -> None:
        self._sharing = Sharing(queues, prefetch)
        await self._channel.basic_qos(prefetch_count=1, timeout=RPC_SECONDS)
        await self._deal_out()
        self._dealer = self._do_beside(self._keep_dealing())

    async def _leave(self) -> None:
        assert self._dealer is not None
        self._uneven.set()
        await asyncio.wait({self._dealer})  # A call that is given up would end the channel in disorder.
        await super()._leave()

    async def _cancel_all(self) -> None:
        """Cancel what holds nothing; every other place goes with the acknowledgement of what it holds."""
        assert self._dealer is not None
        self._sharing.end()
        self._is_dealt_out.clear()
        self._uneven.set()
        dealt_out = asyncio.ensure_future(self._is_dealt_out.wait())
        try:
            # The dealer itself goes on: an acknowledgement that is being written may leave a place to be cancelled.
            await asyncio.wait({self._dealer, dealt_out}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dealt_out.cancel()

    def _look(self, was_silent: bool) -> bool:
        if not super()._look(was_silent):
            return False
        if self._sharing.doubt_idle():
            self._uneven.set()
        return True

    def _on_delivered(self, consumer: str) -> bool:
        self._uneven.set()
        return self._sharing.delivered(consumer)

    def _on_acknowledged(self, consumer: str) -> None:
        self._sharing.acknowledged(consumer)
        self._uneven.set()

    def _frames(self, numbers: Sequence[int]) -> bytes:
        """Cancel the places that leave ahead of what they hold: afterwards they would be given something else."""
        frames = []
        for consumer in (self._unacknowledged[number] for number in numbers):
            if self._sharing.is_leaving(consumer):
                frames.append(cancel_frame(self._channel.number, consumer))
                self._left(consumer)
        return b"".join((*frames, super()._frames(numbers)))

    async def _keep_dealing(self) -> None:
        try:
            with talking("consume"):
                await self._deal_until_lost()
        except AikiError as error:
            self.lose(error.message)

    @property
    def _is_dealing(self) -> bool:
        return self._lost is None and not self._is_between_channels

    async def _deal_until_lost(self) -> None:
        loop = asyncio.get_running_loop()
        turn_ends = loop.time() + TURN_SECONDS
        while self._is_dealing:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(turn_ends if self._sharing.is_crowded else None):
                    await self._uneven.wait()
            self._uneven.clear()
            if loop.time() >= turn_ends:
                turn_ends = loop.time() + TURN_SECONDS
                self._sharing.end_turn()
            await self._deal_out()
            self._is_dealt_out.set()

    async def _deal_out(self) -> None:
        while self._is_dealing and (move := self._sharing.next_move()) is not None:
            if isinstance(move, Cancel):
                self._sharing.called_off(move.tag)
                await self._cancel(move.tag)
                self._left(move.tag)
            else:
                self._sharing.consumed(move)
                await self._consume(move.tag, move.queue)

    def _left(self, consumer: str) -> None:
        self._queues.pop(consumer, None)
        self._channel.consumers.pop(consumer, None)
        self._sharing.cancelled(consumer)
