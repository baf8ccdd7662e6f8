"""Subscriptions: what the broker delivers, decoded as it arrives and handed out in lots.

A subscription has a channel of its own. Closing it gives back at once what was not
acknowledged, and nothing that goes wrong with it touches another subscription.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiormq.abc import ChannelFrame, ConsumerCallback
from aiormq.channel import Channel
from pamqp import commands

from aiki.adapters.broker.rabbitmq.declaring import RPC_SECONDS, declare_on
from aiki.adapters.broker.rabbitmq.frames import ack_frame, give_back_frame
from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.trouble import reason_of, talking
from aiki.adapters.broker.rabbitmq.wire import Delivered
from aiki.asynchronous import end
from aiki.errors import AikiError, BrokerError, DeliveryLostError, UndecodableError
from aiki.observability import get_logger
from aiki.ports.broker import Delivery, Subscription
from broker_topology import Topology

__all__ = ["Arrival", "Decode", "RabbitSubscription", "Refuse"]

T = TypeVar("T")

log = get_logger(__name__)

CLOSE_SECONDS = 5.0

# An acknowledgement waits for the socket only when that is gone and nobody has noticed yet.
WRITE_SECONDS = 2.0


# Between two tries to park what cannot be read: the publisher has waited for a connection already.
PARK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came from the wire."""

    queue: str
    delivered: Delivered

    @property
    def body(self) -> bytes:
        """What it says."""
        return self.delivered.body

    @property
    def properties(self) -> commands.Basic.Properties:
        """What is said about it."""
        return self.delivered.properties


Decode = Callable[[Arrival], T]

Refuse = Callable[[Arrival, UndecodableError], Awaitable[None]]
"""What is done about a message that cannot be decoded; once it returns, the message is acknowledged."""


class RabbitSubscription(Subscription[T], Generic[T]):
    """Deliveries over one channel. ``begin`` starts it."""

    _callback: ConsumerCallback

    def __init__(self, channel: Channel, *, decode: Decode[T], refuse: Refuse) -> None:
        self._decode = decode
        self._refuse = refuse
        self._queues: dict[str, str] = {}  # Consumer → queue, for those that are not cancelled.
        self._numbered = 0
        """How many deliveries there were over channels before this one: a delivery keeps its number for good."""
        self._arrived: list[Delivery[T]] = []
        # Number of a delivery → consumer, in order: what is acknowledged from the front on takes a single frame.
        self._unacknowledged: dict[int, str] = {}
        self._done: set[int] = set()
        """What is to be acknowledged with the next write."""
        self._awakened = asyncio.Event()
        self._writing = asyncio.Lock()
        self._lost: str | None = None
        self._beside: set[asyncio.Task[None]] = set()
        self._when_lost: list[Callable[[], object]] = []
        self._use(channel)

    async def begin(
        self, link: Link, queues: Collection[str], *, prefetch: int, private: Topology | None = None
    ) -> None:
        """Consume from *queues*; *private* ones are declared first, for this connection alone.

        Raises:
            BrokerUnavailableError: the link is gone, or a queue does not exist.
            ConfigurationError: we may not consume from there.
        """
        try:
            with talking("consume"):
                if private is not None:
                    await declare_on(self._channel, private, exclusive=True)
                await self._open(link, queues, prefetch)
        except BaseException:
            await self.close()
            raise
        self.when_lost(link.on_lost(self.lose))

    async def receive(self) -> Sequence[Delivery[T]]:
        """Take all that has arrived."""
        while True:
            self._check()
            if self._arrived:
                arrived, self._arrived = self._arrived, []
                return arrived
            self._awakened.clear()
            await self._awakened.wait()

    async def acknowledge(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Acknowledge what comes first of everything delivered with one frame, and the rest one by one.

        What several callers acknowledge in the same moment leaves with one write.
        """
        self._check()
        await self._acknowledge({delivery.tag for delivery in deliveries})

    async def stop(self) -> None:
        """Cancel the consumers; the channel stays, for what was delivered."""
        self._check()
        await self._ask("stop consuming", self._cancel_all())

    async def close(self) -> None:
        """Close the channel, and return when the broker has taken back what was not acknowledged."""
        self.lose("it was closed")
        await end(*self._beside)
        # In a task of its own: the driver swallows a cancellation that comes in the moment of success, and the
        # caller's is to arrive.
        await asyncio.wait({self._do_beside(self._close_channel())})

    def lose(self, reason: str) -> None:
        """End the subscription: what was delivered is not ours any more."""
        if self._lost is not None:
            return
        self._lost = reason
        self._arrived.clear()
        self._unacknowledged.clear()
        self._awakened.set()
        for tell in self._when_lost:
            tell()

    def when_lost(self, tell: Callable[[], object]) -> None:
        """Have *tell* called when the subscription ends, at once if it has ended already."""
        if self._lost is not None:
            tell()
        else:
            self._when_lost.append(tell)

    def _give_up(self, reason: str) -> None:
        """End the subscription for a reason of its own, and give back at once what it holds."""
        if self._lost is None:
            self.lose(reason)
            self._do_beside(self._close_channel())

    async def _close_channel(self) -> None:
        if not self._channel.is_closed:
            with suppress(AikiError), talking("close a subscription"):
                await self._channel.close(timeout=CLOSE_SECONDS)

    def _use(self, channel: Channel) -> None:
        """Deal with *channel* from now on. It is the first, or the one before was left."""
        self._channel = channel
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        self._closing = channel.closing
        self._closing.add_done_callback(self._on_closed)

    async def _open(self, link: Link, queues: Collection[str], prefetch: int) -> None:
        """Take from the channel what comes from *queues*. Raises what the driver raises."""
        self._callback = link.collect(self._channel, self._arrive)
        await self._start(queues, prefetch)

    async def _start(self, queues: Collection[str], prefetch: int) -> None:
        """Start the consumers. Raises what the driver raises."""
        await self._channel.basic_qos(prefetch_count=prefetch, timeout=RPC_SECONDS)
        for number, queue in enumerate(queues, 1):
            await self._consume(f"aiki-{number}", queue)

    async def _consume(self, consumer: str, queue: str) -> None:
        self._queues[consumer] = queue
        await self._channel.basic_consume(queue, self._callback, consumer_tag=consumer, timeout=RPC_SECONDS)

    async def _cancel(self, consumer: str) -> None:
        await self._channel.basic_cancel(consumer, timeout=RPC_SECONDS)
        self._queues.pop(consumer, None)

    async def _cancel_all(self) -> None:
        for consumer in tuple(self._queues):
            await self._cancel(consumer)

    async def _ask(self, to_do: str, work: Coroutine[Any, Any, None]) -> None:
        """Have the broker do something. If it does not, the subscription ends, for its channel is closed then.

        The work goes on when the caller is cancelled: the driver closes a channel whose call was given up.
        """

        async def asking() -> None:
            try:
                with talking(to_do):
                    await work
            except AikiError as error:
                self._give_up(error.message)

        asked = self._do_beside(asking())
        await asyncio.wait({asked})
        # Closing the subscription cancels what goes on beside it, and not whoever waits for that.
        if asked.cancelled():
            work.close()  # It may not have begun.
        else:
            asked.result()
        self._check()

    def _do_beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* beside everything else, until this subscription is closed at the latest."""
        task = asyncio.create_task(work, name="aiki-rabbitmq-subscription")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    def _check(self) -> None:
        if self._lost is not None:
            raise DeliveryLostError(f"the subscription ended: {self._lost}")

    def _arrive(self, delivered: Delivered) -> None:
        """Take one delivery. Runs in the reader of the connection, and never waits."""
        if self._lost is not None:
            return
        number, consumer = self._numbered + delivered.tag, delivered.consumer
        arrival = Arrival(self._queues.get(consumer, ""), delivered)
        self._unacknowledged[number] = consumer
        if not self._on_delivered(consumer):
            self._do_beside(self._give_back(number))
            return
        try:
            self._arrived.append(Delivery(self._decode(arrival), delivered.redelivered, number))
        except UndecodableError as error:
            self._do_beside(self._refuse_one(arrival, number, error))
        else:
            self._awakened.set()

    def _on_delivered(self, consumer: str) -> bool:
        """Hear of a delivery to *consumer*; tells whether it is kept, or given back at once."""
        return True

    def _on_acknowledged(self, consumer: str) -> None:
        """Hear that what *consumer* held is acknowledged, or given back."""

    async def _give_back(self, number: int) -> None:
        """Give a delivery back to its queue. As long as that is not written, no acknowledgement reaches over it."""
        with suppress(DeliveryLostError):  # Then it goes back by itself.
            async with self._writing:
                self._check()
                await self._write(give_back_frame(self._channel.number, number - self._numbered))
                self._forget((number,))

    async def _refuse_one(self, arrival: Arrival, number: int, error: UndecodableError) -> None:
        """Deal with an unreadable message beside the readable ones, which go on."""
        log.warning("message.undecodable", queue=arrival.queue, reason=error.reason, detail=error.detail)
        while self._lost is None:
            try:
                await self._refuse(arrival, error)
                await self._acknowledge({number})
                return
            except DeliveryLostError:
                return  # It comes again, to whoever subscribes.
            except BrokerError as failure:
                log.warning("message.not_parked", queue=arrival.queue, reason=failure.message)
                await asyncio.sleep(PARK_AGAIN_SECONDS)

    async def _acknowledge(self, numbers: set[int]) -> None:
        self._done |= numbers
        await asyncio.sleep(0)  # Whoever comes in the same moment goes along.
        # One at a time, from the choice of frames to their place in the driver's queue: when that is full, whoever
        # comes later may overtake whoever waits, and the broker closes the channel over a tag that it does not expect.
        async with self._writing:
            self._check()
            if self._done.isdisjoint(numbers):
                return  # Somebody took ours along.
            done = frozenset(self._done)
            # What is not known was acknowledged before; the broker would close the channel over it.
            known = sorted(number for number in done if number in self._unacknowledged)
            if known:
                await self._write(self._frames(known))
            # Not before they are written: whoever is cancelled meanwhile must not take those of others along.
            self._done -= done
            self._forget(known)

    def _frames(self, numbers: Sequence[int]) -> bytes:
        """Choose the frames that acknowledge *numbers*, which are in order."""
        chosen = set(numbers)
        last = 0
        for number in self._unacknowledged:
            if number not in chosen:
                break
            last = number
        channel, before = self._channel.number, self._numbered
        frames = [ack_frame(channel, last - before, multiple=True)] if last else []
        frames += [ack_frame(channel, number - before, multiple=False) for number in numbers if number > last]
        return b"".join(frames)

    def _forget(self, numbers: Sequence[int]) -> None:
        """Note that *numbers* are acknowledged. The subscription may have ended meanwhile, and hold nothing."""
        for number in numbers:
            if (consumer := self._unacknowledged.pop(number, None)) is not None:
                self._on_acknowledged(consumer)

    async def _write(self, payload: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._channel.write_queue.put(ChannelFrame(payload, should_close=False))
        except TimeoutError as error:
            self._give_up("the connection takes nothing any more")
            raise DeliveryLostError("the connection takes nothing any more") from error

    async def _on_cancelled(self, frame: commands.Basic.Cancel) -> None:
        """End: the broker itself cancelled a consumer, because the queue was deleted or its leader lost."""
        self._give_up(f"RabbitMQ cancelled the consumer of {self._queues.get(frame.consumer_tag or '', 'a queue')}")

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.lose(reason_of(None if closing.cancelled() else closing.exception()))
