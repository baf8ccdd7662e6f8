"""The client of the limit: asks for runs, and hears of their outcomes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from uuid import uuid4

from aiki.adapters.broker.rabbitmq import apply_topology
from aiki.adapters.broker.rabbitmq.declaring import declare_on
from aiki.adapters.broker.rabbitmq.frames import ack_frame
from bench.raw.shape import CLIENT, PARTITIONS, QUEUE, REQUESTED, Said
from bench.raw.wire import Deliveries, Lanes, Wire, write
from broker_topology import command_queue, notice_queue

__all__ = ["RawClient", "declare", "raw_client"]

NOTICES_PREFETCH = 1000

_numbers = count()


async def declare(amqp_url: str) -> None:
    """Declare the topology of Aiki, with the queue of one workflow."""
    await apply_topology(amqp_url, partitions=PARTITIONS, more=command_queue(QUEUE))


class RawClient:
    """Asks for runs. Made by ``raw_client``."""

    def __init__(self, wire: Wire, deliveries: Deliveries) -> None:
        self._lanes = Lanes(wire)
        self._deliveries = deliveries
        self._ended: dict[int, asyncio.Future[None]] = {}

    async def enqueue(self, steps: int) -> "asyncio.Future[None]":
        """Ask for a run, and return when that is confirmed; what is returned is done when the run is."""
        number = next(_numbers)
        self._ended[number] = ended = asyncio.get_running_loop().create_future()
        await self._lanes.say(Said(REQUESTED, number, steps))
        return ended

    async def listen(self) -> None:
        """Hear of outcomes, until cancelled."""
        while True:
            arrived = await self._deliveries.receive()
            for _, body in arrived:
                self._ended.pop(int(body.split(b" ", 1)[0])).set_result(None)
            channel = self._deliveries.channel
            await write(channel, [ack_frame(channel.number, arrived[-1][0], multiple=True)])


@asynccontextmanager
async def raw_client(amqp_url: str) -> AsyncIterator[RawClient]:
    """Connect to where ``declare`` was called."""
    wire = await Wire.open(amqp_url)
    try:
        layout = notice_queue(CLIENT, uuid4().hex)
        await declare_on(await wire.link.consuming_channel(), layout, exclusive=True)
        (queue,) = layout.queues
        deliveries = await wire.consume(queue.name, prefetch=NOTICES_PREFETCH)
        client = RawClient(wire, deliveries)
        listening = asyncio.create_task(client.listen())
        yield client
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    finally:
        await wire.close()
