"""A world for the orchestrator: a broker in memory, a store in memory, time that stands still, scripted workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.store.embedded import SqliteStore
from aiki.engine.commands import ExecuteRun, NotifyWorker
from aiki.engine.events import (
    Event,
    JournalAppended,
    RunCompleted,
    RunOrphaned,
    RunRequested,
    RunStarted,
    RunSuspended,
)
from aiki.engine.ids import partition_of
from aiki.engine.journal import EntryKind, JournalEntry, Wait, WaitKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import RunState
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.orchestrator.patience import StorePatience
from aiki.orchestrator.services import Services
from aiki.orchestrator.stats import Stats
from aiki.ports.broker import WorkerBroker
from aiki.ports.clock import Clock
from aiki.ports.store import RunChange, Store
from aiki.testing.builders import requested
from aiki.testing.clock import ManualClock

QUEUE = "greet@1.0.0"
NAP = 30.0

# Seconds of real time after which something that must happen counts as not happening. The store has a thread of
# its own, and a machine that is busy with other tests may leave it without a turn for long.
PATIENCE = 45.0


class World:
    """Everything outside of the orchestrators, and the orchestrators."""

    def __init__(self, store: Store, *, partitions: int = 4) -> None:
        self.clock = ManualClock()
        self.hub = MemoryHub(clock=self.clock, partitions=partitions)
        self.store = store
        self.exit = AsyncExitStack()
        self.client: MemoryBroker

    async def broker(self) -> MemoryBroker:
        """Connect another process."""
        broker = MemoryBroker(self.hub)
        await broker.start()
        self.exit.push_async_callback(broker.close)
        return broker

    async def orchestrator(
        self, name: str = "one", *, store: Any = None, broker: Any = None, **settings: Any
    ) -> Orchestrator:
        """Start an orchestrator, with its own connection."""
        orchestrator = Orchestrator(
            broker or await self.broker(), store or self.store, self.clock, OrchestratorSettings(name=name, **settings)
        )
        await orchestrator.start()
        self.exit.push_async_callback(orchestrator.stop, grace=0.5)
        return orchestrator

    async def worker(self, name: str = "w1", **script: Any) -> "ScriptedWorker":
        """Start a worker."""
        worker = ScriptedWorker(name, await self.broker(), self.clock, **script)
        self.background(worker.run())
        return worker

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Let *work* go on until the world ends."""
        self.exit.push_async_callback(_end, asyncio.create_task(work))

    async def publish(self, *events: Event, partition: int | None = None) -> None:
        """Say something, each in a message of its own."""
        for event in events:
            where = partition_of(event.run_id, self.hub.partitions) if partition is None else partition
            await self.client.publish_events(where, [event], timeout=PATIENCE)

    async def run(self, run_id: str) -> RunState | None:
        """Read a run."""
        return (await self.store.load([run_id])).get(run_id)

    async def until(self, holds: Callable[[], Any], *, step: float = 0.5) -> None:
        """Let time pass until something holds; fails if it does not come to that."""
        async with asyncio.timeout(PATIENCE):
            while not await _truth(holds()):
                await self.clock.advance(step)
                await asyncio.sleep(0.001)  # The store has a thread of its own, which needs real time.

    async def until_now(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds, while the clock stands still."""
        await self.until(holds, step=0.0)

    async def until_over(self, *run_ids: str) -> None:
        """Let time pass until runs are over."""

        async def are_over() -> bool:
            runs = await self.store.load(run_ids)
            return len(runs) == len(run_ids) and all(run.status.is_final for run in runs.values())

        await self.until(are_over)

    async def until_idle(self) -> None:
        """Let every event that is on its way be dealt with."""
        queues = [f"aiki.events.{number}" for number in range(self.hub.partitions)]
        await self.until_now(lambda: not any(self.hub.ready(queue) or self.hub.held(queue) for queue in queues))


async def _truth(value: Any) -> bool:
    return bool(await value if asyncio.iscoroutine(value) else value)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def a_world(*, partitions: int = 4) -> AsyncIterator[World]:
    """Make a world, and end it in order."""
    store = SqliteStore()
    await store.start()
    await store.partitions(partitions)
    world = World(store, partitions=partitions)
    async with world.exit:
        world.exit.push_async_callback(store.close)
        world.client = await world.broker()
        yield world


class ScriptedWorker:
    """Executes every run alike: a task, a nap, another task, done. What is recorded it does not repeat."""

    def __init__(
        self,
        name: str,
        broker: WorkerBroker,
        clock: Clock,
        *,
        naps: bool = True,
        nap: float = NAP,
        steps: int = 2,
    ) -> None:
        self.name = name
        self.executed: Counter[tuple[str, int]] = Counter()
        self.commands: list[ExecuteRun] = []
        self.told: list[NotifyWorker] = []
        self._broker = broker
        self._clock = clock
        self._naps = naps
        self._nap_seconds = nap
        self._steps = steps
        self._sent = 0

    async def run(self) -> None:
        """Take orders until cancelled."""
        control = await self._broker.consume_control(self.name)
        commands = await self._broker.consume_commands([QUEUE], prefetch=100)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(control))
            while True:
                for delivery in await commands.receive():
                    assert isinstance(delivery.body, ExecuteRun)
                    if delivery.redelivered:
                        await self._say(delivery.body, RunOrphaned)
                    else:
                        await self._execute(delivery.body)
                    await commands.acknowledge([delivery])

    async def _listen(self, control: Any) -> None:
        while True:
            deliveries = await control.receive()
            self.told += [delivery.body for delivery in deliveries]
            await control.acknowledge(deliveries)

    async def _execute(self, command: ExecuteRun) -> None:
        self.commands.append(command)
        assert [entry.seq for entry in command.journal] == list(range(1, command.base_seq + 1))
        await self._say(command, RunStarted)
        for seq in range(command.base_seq + 1, self._steps + 1):
            self.executed[command.run_id, seq] += 1
            await self._say(command, JournalAppended, entries=(self._entry(command, seq),))
            if self._naps and seq < self._steps:
                await self._nap(command, seq)
                return
        await self._say(command, RunCompleted, last_seq=self._steps, result=dump_payload("done"))

    async def _nap(self, command: ExecuteRun, seq: int) -> None:
        wake_at = self._clock.now() + timedelta(seconds=self._nap_seconds)
        waits = (Wait(kind=WaitKind.TIMER, operation="timer:greet#1", due_at=wake_at),)
        await self._say(command, RunSuspended, last_seq=seq, waits=waits, wake_at=wake_at)

    def _entry(self, command: ExecuteRun, seq: int) -> JournalEntry:
        return JournalEntry(
            seq=seq,
            epoch=command.pair.epoch,
            at=self._clock.now(),
            kind=EntryKind.TASK_COMPLETED,
            operation=f"task:step:{seq}#1",
            payload=dump_payload(seq),
        )

    async def _say(self, command: ExecuteRun, kind: Callable[..., Event], **facts: Any) -> None:
        self._sent += 1
        event = kind(
            id=f"{self.name}-{self._sent}",
            run_id=command.run_id,
            at=self._clock.now(),
            incarnation=command.incarnation,
            pair=command.pair,
            worker=self.name,
            **facts,
        )
        partition = partition_of(command.run_id, self._broker.partitions)
        await self._broker.publish_events(partition, [event], timeout=PATIENCE)


def a_request(run_id: str = "", **changes: Any) -> RunRequested:
    """Make a request of a run for the scripted worker."""
    return replace(requested(run_id), **changes)


async def entries_of(world: World, run_id: str) -> Sequence[JournalEntry]:
    """Read what a run has recorded."""
    run = await world.run(run_id)
    assert run is not None
    return await world.store.journal(run)


async def keep(world: World, run: RunState, *journal: JournalEntry) -> RunState:
    """Store a run that is not there yet, with what it has recorded."""
    change = RunChange.between(None, run, journal)
    assert not await world.store.commit([change])
    return change.after


def services_of(world: World, broker: Any = None, store: Any = None) -> Services:
    """Make what one part of an orchestrator needs, without the others."""
    patience = StorePatience(world.clock, retry_delay=0.1, retry_delay_max=1.0)
    return Services(
        broker or world.client, store or world.store, world.clock, OrchestratorSettings(), Stats(), patience
    )
