"""The broker as the limit uses it: one link, windows of confirms, and deliveries without a task each."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from aiki.adapters.broker.rabbitmq.frames import ack_frame
from aiki.adapters.broker.rabbitmq.link import Link, addresses_of
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.windows import PublishChannel, Refusal
from aiki.adapters.broker.rabbitmq.wire import Arrive, Delivered
from bench.raw.shape import PARTITIONS, Said, partition_of, said
from broker_topology import EVENTS, partition_key

__all__ = ["Deliveries", "Lanes", "Wire", "write"]

# As many events as Aiki puts into one message.
EVENTS_PER_MESSAGE = 500


class Wire:
    """A link with one channel that publishes."""

    def __init__(self, link: Link, publisher: PublishChannel) -> None:
        self.link = link
        self._publisher = publisher

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect."""
        link = await Link.open(addresses_of(url)[0], name="raw", heartbeat=10, timeout=10)
        return cls(link, PublishChannel(await link.publishing_channel()))

    def publish(self, messages: Sequence[Outgoing]) -> "asyncio.Future[Mapping[int, Refusal]]":
        """Publish *messages*; what is returned is done when all of them are confirmed."""
        return self._publisher.submit(messages).done

    async def consume(self, queue: str, *, prefetch: int) -> "Deliveries":
        """Consume from *queue*; what arrives is collected."""
        deliveries = Deliveries(await self.link.consuming_channel())
        await self.hand_over(deliveries.channel, queue, deliveries.arrive, prefetch=prefetch)
        return deliveries

    async def hand_over(self, channel: Channel, queue: str, arrive: Arrive, *, prefetch: int) -> None:
        """Consume from *queue*: *arrive* is called with each delivery, in the reader of the wire."""
        callback = self.link.collect(channel, arrive)
        await channel.basic_qos(prefetch_count=prefetch)
        await channel.basic_consume(queue, callback)

    async def close(self) -> None:
        """Disconnect."""
        await self._publisher.close("done")
        await self.link.close("done")


class Deliveries:
    """What arrives on one channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._arrived: list[tuple[int, bytes]] = []
        self._awakened = asyncio.Event()
        self._done: list[int] = []

    def arrive(self, delivered: Delivered) -> None:
        """Take one delivery, in the reader of the wire."""
        self._arrived.append((delivered.tag, delivered.body))
        self._awakened.set()

    async def receive(self) -> list[tuple[int, bytes]]:
        """Take all that has arrived, at least one, as tags and bodies."""
        await self._awakened.wait()
        self._awakened.clear()
        arrived, self._arrived = self._arrived, []
        return arrived

    async def acknowledge(self, tag: int) -> None:
        """Acknowledge a delivery; those that are done in the same moment leave with one write."""
        self._done.append(tag)
        await asyncio.sleep(0)
        if self._done:
            tags, self._done = self._done, []
            await write(self.channel, [ack_frame(self.channel.number, tag, multiple=False) for tag in tags])


async def write(channel: Channel, frames: Iterable[bytes]) -> None:
    """Write *frames* at once, of *channel* or of others on its connection."""
    await channel.write_queue.put(ChannelFrame(b"".join(frames), should_close=False))


class Lanes:
    """The partitions as a sender sees them: in each, one message under way, and what is said meanwhile in the next."""

    def __init__(self, wire: Wire) -> None:
        self._lanes = [_Lane(wire, partition) for partition in range(PARTITIONS)]

    def say(self, event: Said) -> "asyncio.Future[None]":
        """Say *event*; what is returned is done when it is confirmed."""
        return self._lanes[partition_of(event.number)].say(said(event))


class _Lane:
    def __init__(self, wire: Wire, partition: int) -> None:
        self._wire = wire
        self._key = partition_key(partition)
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._is_busy = False

    def say(self, line: bytes) -> "asyncio.Future[None]":
        confirmed = self._loop.create_future()
        self._lines.append(line)
        self._waiting.append(confirmed)
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._send)  # Whatever else is said in this turn goes along.
        return confirmed

    def _send(self) -> None:
        lines, self._lines = self._lines[:EVENTS_PER_MESSAGE], self._lines[EVENTS_PER_MESSAGE:]
        waiting, self._waiting = self._waiting[:EVENTS_PER_MESSAGE], self._waiting[EVENTS_PER_MESSAGE:]
        message = Outgoing(exchange=EVENTS, routing_key=self._key, body=b"".join(lines), type="Events")

        def confirmed(done: "asyncio.Future[Mapping[int, Refusal]]") -> None:
            refused = done.result()
            assert not refused, f"the broker refused a message of events: {refused}"
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            if self._lines:
                self._loop.call_soon(self._send)
            else:
                self._is_busy = False

        self._wire.publish((message,)).add_done_callback(confirmed)
