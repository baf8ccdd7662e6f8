"""Ports that count what is asked of them, and an engine that stands on them."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from aiki import Client, Worker
from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.clock import SystemClock
from aiki.adapters.store.embedded import SqliteStore
from aiki.engine.commands import Command
from aiki.engine.events import Event
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.ports.store import RunChange, Store
from bench.workflows import fan_out, napping, three_steps

__all__ = ["Engine", "an_engine"]

READS = ("load", "journal", "journals", "unfinished", "find")


class Engine:
    """A client, an orchestrator and a worker, each with its own connection, and what they ask of broker and store.

    A publish returns when its events are stored, so one thing happens after the other, and counts do not vary.
    """

    def __init__(self, client: Client, counts: Counter[str]) -> None:
        self.client = client
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
    store = SqliteStore()
    await store.start()
    await store.partitions(1)
    clock = SystemClock()
    hub = MemoryHub(clock=clock, partitions=1, durable_confirms=True)
    brokers = [_CountingBroker(hub, counts) for _ in range(3)]
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
            yield Engine(client, counts)
    finally:
        await orchestrator.stop(grace=5)
        for broker in brokers:
            await broker.close()
        await store.close()


class _CountingBroker(MemoryBroker):
    def __init__(self, hub: MemoryHub, counts: Counter[str]) -> None:
        super().__init__(hub)
        self._counts = counts

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        self._counts["event messages"] += 1
        self._counts["events"] += len(events)
        await super().publish_events(partition, events, timeout=timeout)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        self._counts["windows of commands"] += 1
        self._counts["commands"] += len(commands)
        await super().send(commands, timeout=timeout)


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
        return await self._store.commit(changes)


def _counting(store: SqliteStore, counts: Counter[str]) -> Store:
    return cast(Store, _CountingStore(store, counts))
