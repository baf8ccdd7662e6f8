"""The two processes beside the client: one writes what happened, one executes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiormq.channel import Channel
from pymongo import InsertOne, ReplaceOne

from aiki.adapters.broker.rabbitmq.frames import ack_frame
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.windows import Refusal
from aiki.adapters.broker.rabbitmq.wire import Delivered
from aiki.adapters.store.mongodb.driver import Database, connect, open_database
from aiki.adapters.store.mongodb.layout import INDEXES
from aiki.orchestrator.settings import OrchestratorSettings
from bench.raw.shape import (
    CLIENT,
    COMPLETED,
    PARTITIONS,
    QUEUE,
    RECORDED,
    REQUESTED,
    STARTED,
    Said,
    command_body,
    entry_document,
    heard,
    notice_body,
    run_document,
    run_id,
)
from bench.raw.wire import Deliveries, Lanes, Wire, write
from broker_topology import COMMANDS, NOTICES, client_address, notice_key, partition_queue

__all__ = ["AMQP_URL", "MONGODB_URL", "READY", "execute", "orchestrate"]

READY = "ready"

# Where the environment names the servers.
AMQP_URL, MONGODB_URL = "BENCH_RAW_AMQP_URL", "BENCH_RAW_MONGODB_URL"

SETTINGS = OrchestratorSettings()

# As Aiki's worker has it by default.
RUNS_AT_ONCE = 100

REVISIONS = {REQUESTED: 1, STARTED: 2, COMPLETED: 3}

# What a run says on its way: nobody waits for what follows from it.
PASSING = (STARTED, RECORDED)


async def orchestrate(amqp_url: str, mongodb_url: str) -> None:
    """Take what has arrived, write it, order what follows, acknowledge when that is confirmed; until cancelled."""
    database = open_database(connect(mongodb_url), None)
    await database["runs"].create_indexes(list(INDEXES["runs"]))
    wire = await Wire.open(amqp_url)
    writer = _Writer(wire, database)
    for number in range(PARTITIONS):
        channel = await wire.link.consuming_channel()
        arrive = _Partition(channel, writer).arrive
        await wire.hand_over(channel, partition_queue(number), arrive, prefetch=SETTINGS.prefetch)
    print(READY, flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.acknowledge())
        group.create_task(writer.run())


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was said in one partition, up to the delivery *tag*."""

    channel: Channel
    said: Sequence[Said]
    tag: int


class _Partition:
    """What is said on the way of a run waits for what comes next, as long as it does in Aiki."""

    def __init__(self, channel: Channel, writer: "_Writer") -> None:
        self._channel = channel
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._said: list[Said] = []
        self._messages = 0
        self._tag = 0
        self._leaving: asyncio.TimerHandle | None = None

    def arrive(self, delivered: Delivered) -> None:
        """Take one delivery, in the reader of the wire."""
        said = heard(delivered.body)
        self._said += said
        self._messages += 1
        self._tag = delivered.tag
        if self._messages == SETTINGS.prefetch // 2 or any(event.kind not in PASSING for event in said):
            self._leave()
        elif self._leaving is None:
            self._leaving = self._loop.call_later(SETTINGS.company, self._leave)

    def _leave(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._writer.put(_Batch(self._channel, self._said, self._tag))
        self._said, self._messages = [], 0


class _Writer:
    """Writes what all partitions have; what comes while a write is under way goes with the next.

    Orders leave as soon as a write is done, and the next write does not wait for their confirm.
    """

    def __init__(self, wire: Wire, database: Database) -> None:
        self._wire = wire
        self._runs, self._journal = database["runs"], database["journal"]
        self._batches: list[_Batch] = []
        self._arrived = asyncio.Event()
        self._written: asyncio.Queue[_Written] = asyncio.Queue()

    def put(self, batch: _Batch) -> None:
        """Have *batch* written."""
        self._batches.append(batch)
        self._arrived.set()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batches, self._batches = self._batches, []
            said = [event for batch in batches for event in batch.said]
            entries = [entry_document(event.number, event.seq) for event in said if event.kind == RECORDED]
            if entries:
                await self._journal.insert_many(entries, ordered=False)
            writes = _writes(said)
            if writes:
                await self._runs.bulk_write(writes, ordered=False)
            orders = list(_orders(said))
            self._written.put_nowait(_Written(batches, self._wire.publish(orders) if orders else None))

    async def acknowledge(self) -> None:
        """Acknowledge in order what was written, each when all that followed from it is confirmed; until cancelled."""
        while True:
            written = await self._written.get()
            if written.confirmed is not None:
                refused = await written.confirmed
                assert not refused, f"the broker refused an order: {refused}"
            last = {batch.channel: batch.tag for batch in written.batches}
            frames = [ack_frame(channel.number, tag, multiple=True) for channel, tag in last.items()]
            await write(next(iter(last)), frames)


@dataclass(frozen=True, slots=True)
class _Written:
    """What is stored, and what is done when the orders that follow from it are confirmed."""

    batches: Sequence[_Batch]
    confirmed: "asyncio.Future[Mapping[int, Refusal]] | None"


async def execute(amqp_url: str) -> None:
    """Execute what has arrived, each step after the confirm of the one before; until cancelled."""
    wire = await Wire.open(amqp_url)
    lanes = Lanes(wire)
    deliveries = await wire.consume(QUEUE, prefetch=RUNS_AT_ONCE)
    print(READY, flush=True)
    async with asyncio.TaskGroup() as group:
        while True:
            for tag, body in await deliveries.receive():
                group.create_task(_execute_one(lanes, deliveries, tag, body))


async def _execute_one(lanes: Lanes, deliveries: Deliveries, tag: int, body: bytes) -> None:
    number, steps = map(int, body.split(b" ", 2)[:2])
    lanes.say(Said(STARTED, number, steps))
    for seq in range(1, abs(steps) + 1):
        recorded = lanes.say(Said(RECORDED, number, steps, seq))
        if 0 < seq < steps:
            await recorded  # Behind the last one nothing starts that would have to wait: the end goes along.
    await lanes.say(Said(COMPLETED, number, steps))
    await deliveries.acknowledge(tag)


def _writes(said: Sequence[Said]) -> list[InsertOne[dict[str, Any]] | ReplaceOne[dict[str, Any]]]:
    """Write each run once, however much was said of it."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for event in said:
        revision = REVISIONS.get(event.kind)
        if revision is not None:
            first.setdefault(event.number, revision)
            last[event.number] = revision
    return [
        InsertOne(run_document(number, revision))
        if first[number] == 1
        else ReplaceOne({"_id": run_id(number), "rev": first[number] - 1}, run_document(number, revision))
        for number, revision in last.items()
    ]


def _orders(said: Sequence[Said]) -> Iterable[Outgoing]:
    for event in said:
        if event.kind == REQUESTED:
            yield Outgoing(
                exchange=COMMANDS,
                routing_key=QUEUE,
                body=command_body(event.number, event.steps),
                type="ExecuteRun",
                correlation_id=run_id(event.number),
            )
        elif event.kind == COMPLETED:
            yield Outgoing(
                exchange=NOTICES,
                routing_key=notice_key("three-steps", run_id(event.number), "completed"),
                body=notice_body(event.number),
                type="AnnounceOutcome",
                correlation_id=run_id(event.number),
                kept=False,
                returned=False,
                copy_to=client_address(CLIENT),
            )
