"""Ports that count what is asked of them, and an engine that stands on them."""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, cast

import bson

import broker_topology
from aiki import Client, Worker
from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.broker.rabbitmq.frames import message_frames
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing, command_message, events_message
from aiki.adapters.clock import SystemClock
from aiki.adapters.store.embedded import SqliteStore
from aiki.adapters.store.mongodb.layout import entry_place, journal_document, run_document
from aiki.codec.messages import decode_command, decode_events, decode_notice
from aiki.engine.commands import Command
from aiki.engine.events import Event
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.ports.store import RunChange, Store
from bench.workflows import fan_out, napping, three_steps

__all__ = ["Engine", "an_engine", "calls_of_three_steps", "cost_of_three_steps"]

# As long as those of the broker's adapter; the size of a frame is RabbitMQ's default.
MESSAGE_ID = "0123456789abcdef-1000"
FRAME_MAX = 131_072
SLOT = 2**32 - 1

READS = ("load", "journal", "journals", "unfinished", "find")


@contextmanager
def counted_calls(counts: Counter[str], name: str) -> Iterator[None]:
    """Count, as *name*, the calls of functions, Python's and C's, that this thread makes inside the ``with`` block."""

    def count(_frame: object, event: str, _argument: object) -> None:
        counts[name] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


class Engine:
    """A client, an orchestrator and a worker, each with its own connection, and what they ask of broker and store.

    A publish returns when its events are stored, so one thing happens after the other, and counts do not vary.
    """

    def __init__(self, client: Client, counts: Counter[str], messages: Sequence[Outgoing]) -> None:
        self.client = client
        self.messages = messages
        """All that was published so far."""
        self._counts = counts

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count what happens inside the ``with`` block."""
        before = Counter(self._counts)
        result: Counter[str] = Counter()
        yield result
        result.update(self._counts - before)


@asynccontextmanager
async def an_engine() -> AsyncIterator[Engine]:
    """Start one that has dealt with enough messages to trust what it remembers."""
    counts: Counter[str] = Counter()
    messages: list[Outgoing] = []
    store = SqliteStore()
    await store.start()
    await store.partitions(1)
    clock = _EvenClock()
    hub = MemoryHub(clock=clock, partitions=1, durable_confirms=True)
    brokers = [_CountingBroker(hub, counts, messages) for _ in range(3)]
    for broker in brokers:
        await broker.start()
    # What is prefetched at the start may have been with somebody else before, and is looked up.
    orchestrator = Orchestrator(brokers[0], _counting(store, counts), clock, OrchestratorSettings(prefetch=1))
    await orchestrator.start()
    try:
        async with (
            Client(brokers[1], clock=clock) as client,
            Client(brokers[2], clock=clock, listen=False) as connection_of_the_worker,
            Worker(connection_of_the_worker, workflows=[three_steps, fan_out, napping]),
        ):
            for _ in range(2):
                await (await three_steps.enqueue(client, 0)).wait_for_completion(timeout=20)
            yield Engine(client, counts, messages)
    finally:
        await orchestrator.stop(grace=5)
        for broker in brokers:
            await broker.close()
        await store.close()


class _CountingBroker(MemoryBroker):
    def __init__(self, hub: MemoryHub, counts: Counter[str], messages: list[Outgoing]) -> None:
        super().__init__(hub)
        self._messages = messages
        self._counts = counts

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        self._counts["event messages"] += 1
        self._counts["events"] += len(events)
        self._measure("event", events_message(partition, events))
        await super().publish_events(partition, events, timeout=timeout)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        self._counts["windows of commands"] += 1
        self._counts["commands"] += len(commands)
        for command in commands:
            self._measure("command", command_message(command, self.partitions))
        await super().send(commands, timeout=timeout)

    def _measure(self, kind: str, message: Outgoing) -> None:
        """Count what the message takes on the wire, with its properties and frames."""
        self._messages.append(message)
        frames = message_frames(1, message, message_id=MESSAGE_ID, seconds=0, frame_max=FRAME_MAX)
        self._counts[f"{kind} bytes"] += sum(map(len, frames))


class _CountingStore:
    def __init__(self, store: SqliteStore, counts: Counter[str]) -> None:
        self._store = store
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        if name in READS:
            self._counts["reads"] += 1
        return getattr(self._store, name)

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        self._counts["commits"] += 1
        self._counts["runs written"] += sum(change.writes_run for change in changes)
        self._counts["entries written"] += sum(len(change.journal) for change in changes)
        for change in changes:
            self._measure(change)
        return await self._store.commit(changes)

    def _measure(self, change: RunChange) -> None:
        """Count what the documents of *change* take in MongoDB, before compression."""
        run = change.after
        if change.writes_run:
            # Half of all slots are small enough for a shorter number.
            document = {**run_document(run), "slot": SLOT}
            self._counts["run bytes"] += len(bson.encode(document))
        prefix = entry_place(run.run_id, run.incarnation)
        for entry in change.journal:
            document = journal_document(run, entry, prefix=prefix, whole=run.last_seq)
            self._counts["entry bytes"] += len(bson.encode(document))


class _EvenClock(SystemClock):
    """Its milliseconds are never zero, which would be left out of a message."""

    def now(self) -> datetime:
        return super().now().replace(microsecond=123_000)


async def calls_of_three_steps(engine: Engine, *, reading: Sequence[Outgoing]) -> Counter[str]:
    """Count the calls of functions that a run of three steps makes, and those that *reading* its messages makes.

    The run goes through a broker and a store inside the process, so that nothing of a driver's is in it.
    """
    calls: Counter[str] = Counter()
    with counted_calls(calls, "reading calls"):
        for message in reading:
            _decoded(message)
    with counted_calls(calls, "calls"):
        handle = await three_steps.enqueue(engine.client, 0)
        await handle.wait_for_completion(timeout=20)
    return calls


async def cost_of_three_steps() -> Counter[str]:
    """Count what one run of three steps takes: messages, writes, bytes, calls."""
    async with an_engine() as engine:
        before = len(engine.messages)
        with engine.counted() as counts:
            handle = await three_steps.enqueue(engine.client, 0)
            await handle.wait_for_completion(timeout=20)
        return counts + await calls_of_three_steps(engine, reading=engine.messages[before:])


def _decoded(message: Outgoing) -> object:
    match message.exchange:
        case broker_topology.EVENTS:
            return decode_events(message.body)
        case broker_topology.COMMANDS:
            return decode_command(message.body)
        case _:
            return decode_notice(message.body)


def _counting(store: SqliteStore, counts: Counter[str]) -> Store:
    return cast(Store, _CountingStore(store, counts))
