"""The two processes beside the client: one writes what happened, one executes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import InsertOne, ReplaceOne

from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.windows import Refusal
from aiki.adapters.store.mongodb.driver import connect, open_database
from aiki.adapters.store.mongodb.layout import INDEXES
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
from bench.raw.wire import Deliveries, Lanes, Wire
from broker_topology import COMMANDS, NOTICES, client_address, notice_key, partition_queue

__all__ = ["AMQP_URL", "MONGODB_URL", "READY", "execute", "orchestrate"]

READY = "ready"

# Where the environment names the servers.
AMQP_URL, MONGODB_URL = "BENCH_RAW_AMQP_URL", "BENCH_RAW_MONGODB_URL"

# As Aiki's orchestrator and worker have it by default.
EVENTS_PREFETCH = 200
RUNS_AT_ONCE = 100

REVISIONS = {REQUESTED: 1, STARTED: 2, COMPLETED: 3}


async def orchestrate(amqp_url: str, mongodb_url: str) -> None:
    """Take what has arrived, write it, order what follows, acknowledge when that is confirmed; until cancelled."""
    client = connect(mongodb_url)
    database = open_database(client, None)
    runs, journal = database["runs"], database["journal"]
    await runs.create_indexes(list(INDEXES["runs"]))
    wire = await Wire.open(amqp_url)
    events = await wire.consume([partition_queue(number) for number in range(PARTITIONS)], prefetch=EVENTS_PREFETCH)
    acknowledging = _InOrder(events)
    print(READY, flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(acknowledging.run())
        while True:
            arrived = await events.receive()
            said = [event for _, body in arrived for event in heard(body)]
            entries = [entry_document(event.number, event.seq) for event in said if event.kind == RECORDED]
            if entries:
                await journal.insert_many(entries, ordered=False)
            writes = _writes(said)
            if writes:
                await runs.bulk_write(writes, ordered=False)
            orders = list(_orders(said))
            acknowledging.put(arrived[-1][0], wire.publish(orders) if orders else None)


async def execute(amqp_url: str) -> None:
    """Execute what has arrived, each step after the confirm of the one before; until cancelled."""
    wire = await Wire.open(amqp_url)
    lanes = Lanes(wire)
    deliveries = await wire.consume([QUEUE], prefetch=RUNS_AT_ONCE)
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
    await deliveries.acknowledge((tag,))


class _InOrder:
    """Acknowledges everything up to a delivery when all that followed from it is confirmed."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._queue: asyncio.Queue[tuple[int, asyncio.Future[Mapping[int, Refusal]] | None]] = asyncio.Queue()

    def put(self, tag: int, confirmed: "asyncio.Future[Mapping[int, Refusal]] | None") -> None:
        self._queue.put_nowait((tag, confirmed))

    async def run(self) -> None:
        while True:
            tag, confirmed = await self._queue.get()
            if confirmed is not None:
                refused = await confirmed
                assert not refused, f"the broker refused an order: {refused}"
            await self._deliveries.acknowledge((tag,), multiple=True)


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
