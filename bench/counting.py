"""Ports that count what is asked of them, and an engine that stands on them."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
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
from aiki.cli.measuring import in_flight
from aiki.codec.messages import decode_command, decode_events, decode_notice
from aiki.engine.commands import Command
from aiki.engine.events import Event
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.ports.broker import Broker
from aiki.ports.clock import Clock
from aiki.ports.store import RunChange, Store
from aiki.testing.simulation.loop import SimulationLoop
from aiki.testing.simulation.store import InlineStore
from aiki.testing.simulation.world import SimulatedClock
from bench.workflows import fan_out, napping, three_steps

__all__ = ["Engine", "an_engine", "calls_of_three_steps", "cost_in_flight", "cost_of_three_steps"]

# As long as those of the broker's adapter; the size of a frame is RabbitMQ's default.
MESSAGE_ID = "0123456789abcdef-1000"
FRAME_MAX = 131_072
SLOT = 2**32 - 1

# What belongs to a connection and not to a run. Every other call of a port is counted, by its name.
UNCOUNTED = frozenset({"start", "close", "partitions"})

# What is done every so often, however much is done, is put off until nobody counts any more.
NEVER = 86_400.0
SELDOM = OrchestratorSettings(heartbeat=NEVER, presence=2 * NEVER, timer_horizon=NEVER, sweep_every=NEVER)

# About what a quorum queue and a write of a replica set take; in virtual time, so that only their order matters.
CONFIRM_SECONDS, COMMIT_SECONDS = 0.001, 0.003
PARTITIONS = 8


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
    clock = _EvenClock()
    hub = MemoryHub(clock=clock, partitions=1, durable_confirms=True)
    # What is prefetched at the start may have been with somebody else before, and is looked up.
    async with _started(hub, SqliteStore(), clock, replace(SELDOM, prefetch=1)) as engine:
        for _ in range(2):
            await (await three_steps.enqueue(engine.client, 0)).wait_for_completion(timeout=20)
        yield engine


@asynccontextmanager
async def _started(
    hub: MemoryHub,
    store: SqliteStore,
    clock: Clock,
    settings: OrchestratorSettings,
    *,
    confirm: float = 0,
    commit: float = 0,
) -> AsyncIterator[Engine]:
    """Start an engine on *hub* and *store*, which take *confirm* and *commit* seconds."""
    counts: Counter[str] = Counter()
    messages: list[Outgoing] = []
    await store.start()
    await store.partitions(hub.partitions)
    brokers = [MemoryBroker(hub) for _ in range(3)]
    for broker in brokers:
        await broker.start()
    counting = [cast(Broker, _CountingBroker(broker, counts, messages, seconds=confirm)) for broker in brokers]
    orchestrator = Orchestrator(
        counting[0], cast(Store, _CountingStore(store, counts, seconds=commit)), clock, settings
    )
    await orchestrator.start()
    try:
        async with (
            Client(counting[1], clock=clock) as client,
            Client(counting[2], clock=clock, listen=False) as connection_of_the_worker,
            Worker(connection_of_the_worker, workflows=[three_steps, fan_out, napping]),
        ):
            yield Engine(client, counts, messages)
    finally:
        await orchestrator.stop(grace=5)
        for broker in brokers:
            await broker.close()
        await store.close()


class _CountingPort:
    """A port of which every call is counted."""

    _name: str

    def __init__(self, port: object, counts: Counter[str], *, seconds: float) -> None:
        self._port = port
        self._counts = counts
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if callable(found) and name not in UNCOUNTED:
            self._counts[f"{self._name}.{name}"] += 1
        return found

    async def _pass(self) -> None:
        """Take as long as a server does."""
        if self._seconds:
            await asyncio.sleep(self._seconds)


class _CountingBroker(_CountingPort):
    _name = "broker"
    _port: MemoryBroker

    def __init__(self, broker: MemoryBroker, counts: Counter[str], messages: list[Outgoing], *, seconds: float) -> None:
        super().__init__(broker, counts, seconds=seconds)
        self._messages = messages

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        self._counts["event messages"] += 1
        self._counts["events"] += len(events)
        self._measure("event", events_message(partition, events))
        await self._pass()
        await self._port.publish_events(partition, events, timeout=timeout)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        self._counts["windows of commands"] += 1
        self._counts["commands"] += len(commands)
        for command in commands:
            self._measure("command", command_message(command, self._port.partitions))
        await self._pass()
        await self._port.send(commands, timeout=timeout)

    def _measure(self, kind: str, message: Outgoing) -> None:
        """Count what the message takes on the wire, with its properties and frames."""
        self._messages.append(message)
        frames = message_frames(1, message, message_id=MESSAGE_ID, seconds=0, frame_max=FRAME_MAX)
        self._counts[f"{kind} bytes"] += sum(map(len, frames))


class _CountingStore(_CountingPort):
    _name = "store"
    _port: SqliteStore

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        self._counts["commits"] += 1
        self._counts["runs written"] += sum(change.writes_run for change in changes)
        self._counts["entries written"] += sum(len(change.journal) for change in changes)
        for change in changes:
            self._measure(change)
        await self._pass()
        return await self._port.commit(changes)

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


def cost_in_flight(runs: int, *, at_once: int, keyed: bool = False) -> Counter[str]:
    """Count what so many runs of three steps take with *at_once* of them in flight, in virtual time.

    Those that have a key of their own belong to any partition; the others are kept together by the client.
    """
    with asyncio.Runner(loop_factory=SimulationLoop) as runner:
        return runner.run(_cost_in_flight(runs, at_once=at_once, keyed=keyed))


async def _cost_in_flight(runs: int, *, at_once: int, keyed: bool) -> Counter[str]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulationLoop)
    clock = SimulatedClock(loop)
    hub = MemoryHub(clock=clock, partitions=PARTITIONS)

    async def one(number: int) -> None:
        key = f"key-{number}" if keyed else None
        handle = await three_steps.with_options(idempotency_key=key).enqueue(engine.client, number)
        await handle.wait_for_completion(timeout=60)

    async with _started(hub, InlineStore(), clock, SELDOM, confirm=CONFIRM_SECONDS, commit=COMMIT_SECONDS) as engine:
        await asyncio.sleep(1)  # Everybody has said by then that they are there.
        with engine.counted() as counts:
            await in_flight(one, times=runs, at_once=at_once)
    return counts


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
