"""A whole engine in this process for tests of clients: the real orchestrator, and a worker that does as it is told."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.clock import SystemClock
from aiki.adapters.store.embedded import SqliteStore
from aiki.engine.commands import ExecuteRun
from aiki.engine.events import Event, RunCompleted, RunFailed, RunStarted
from aiki.engine.ids import partition_of
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload
from aiki.errors import DeliveryLostError
from aiki.orchestrator.service import Orchestrator
from aiki.sdk.client import Client

QUEUE = "greet@1.0.0"
SOON = 10.0

Answer = Callable[[ExecuteRun], Payload | Failure]


async def eventually(condition: Callable[[], Awaitable[object]] | Callable[[], object]) -> None:
    """Wait until *condition* holds, as long as a test may take."""
    async with asyncio.timeout(SOON):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0)


class Engine:
    """The servers' side of a test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.clock = SystemClock()
        self.hub = MemoryHub(clock=self.clock, partitions=4, durable_confirms=False)
        self.store = SqliteStore()
        self.runs_executed: list[str] = []
        self._stack = stack
        self._orchestrator: Orchestrator | None = None

    async def connected(self) -> MemoryBroker:
        """Make one more end of the broker."""
        broker = MemoryBroker(self.hub)
        await broker.start()
        self._stack.push_async_callback(broker.close)
        return broker

    async def client(self, *, timeout: float = SOON, listen: bool = True) -> Client:
        """Make one more client, as another process would."""
        client = Client(MemoryBroker(self.hub), clock=self.clock, timeout=timeout, listen=listen)
        return await self._stack.enter_async_context(client)

    async def start_orchestrator(self) -> None:
        """Let events be dealt with from now on."""
        self._orchestrator = Orchestrator(await self.connected(), self.store, self.clock)
        await self._orchestrator.start()
        self._stack.push_async_callback(self._orchestrator.stop, 1.0)

    async def stop_orchestrator(self) -> None:
        """Let events wait from now on."""
        assert self._orchestrator is not None
        await self._orchestrator.stop(1.0)

    async def start_worker(self, answer: Answer, *, go: asyncio.Event | None = None) -> None:
        """Let runs be executed from now on: each ends with what *answer* says, once *go* is set."""
        broker = await self.connected()
        subscription = await broker.consume_commands([QUEUE], prefetch=1000)

        async def work() -> None:
            while True:
                try:
                    deliveries = await subscription.receive()
                except DeliveryLostError:
                    return
                if go is not None:
                    await go.wait()
                for delivery in deliveries:
                    assert isinstance(delivery.body, ExecuteRun)
                    self.runs_executed.append(delivery.body.run_id)
                    events = ended(delivery.body, answer(delivery.body))
                    partition = partition_of(delivery.body.run_id, broker.partitions)
                    await broker.publish_events(partition, events, timeout=SOON)
                await subscription.acknowledge(deliveries)

        working = asyncio.create_task(work())

        async def stop() -> None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

        self._stack.push_async_callback(stop)


def published(engine: Engine) -> list[Event]:
    """Everything in the event queues that nobody took yet."""
    numbers = range(engine.hub.partitions)
    return [event for number in numbers for message in engine.hub.ready(f"aiki.events.{number}") for event in message]


def ended(command: ExecuteRun, outcome: Payload | Failure) -> tuple[Event, Event]:
    """Say that a run was started and ended."""
    facts = {
        "run_id": command.run_id,
        "at": command.now,
        "incarnation": command.incarnation,
        "pair": command.pair,
        "worker": "stand-in",
    }
    end: Event
    if isinstance(outcome, Failure):
        end = RunFailed(**facts, id=uuid4().hex, last_seq=command.base_seq, failure=outcome)  # type: ignore[arg-type]
    else:
        end = RunCompleted(**facts, id=uuid4().hex, last_seq=command.base_seq, result=outcome)  # type: ignore[arg-type]
    return RunStarted(**facts, id=uuid4().hex), end  # type: ignore[arg-type]


@asynccontextmanager
async def an_engine(*, orchestrator: bool = True) -> AsyncIterator[Engine]:
    """Run an engine for a test."""
    async with AsyncExitStack() as stack:
        engine = Engine(stack)
        await engine.store.start()
        stack.push_async_callback(engine.store.close)
        await engine.store.partitions(engine.hub.partitions)
        if orchestrator:
            await engine.start_orchestrator()
        yield engine
