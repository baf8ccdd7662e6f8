"""What the tests of workers share."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.engine.events import Event
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import workflow

__all__ = ["Bench", "HeldUpBroker", "listening"]


class Bench:
    """One workflow with a task that takes as long as the test likes."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.lets_go = asyncio.Event()
        self.lets_go.set()
        self.begun = 0
        self.stopped = 0
        self.done: list[str] = []

        @task
        async def long(name: str) -> str:
            self.begun += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.stopped += 1
                await self.lets_go.wait()
                raise
            self.done.append(name)
            return name

        @workflow(name="working")
        async def working(run: Run, name: str) -> list[str]:
            return [await long.run(run, f"{name}-{number}") for number in (1, 2)]

        self.working = working


class HeldUpBroker(MemoryBroker):
    """A broker that confirms no event of a kind before it is told to."""

    def __init__(self, hub: MemoryHub, kind: type[Any]) -> None:
        super().__init__(hub)
        self._kind = kind
        self.is_held_up = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        if any(isinstance(event, self._kind) for event in events):
            self.is_held_up.set()
            await self.goes_on.wait()
        await super().publish_events(partition, events, timeout=timeout)

    def let_go(self) -> None:
        """Confirm what is held up now, and hold up what comes next."""
        self.is_held_up.clear()
        self.goes_on.set()
        self.goes_on = asyncio.Event()


@task(name="waits-for-ever")
async def waits_for_ever() -> None:
    """Keep the run in its place."""
    await asyncio.Event().wait()


@workflow(name="listening")
async def listening(run: Run) -> str:
    """Execute something until somebody says what comes of it."""
    busy = asyncio.ensure_future(waits_for_ever.run(run))
    try:
        return await run.wait_for_signal("go", str)
    finally:
        busy.cancel()
