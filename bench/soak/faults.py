"""The faults of the soak, drawn from a seed. Whatever is broken works again before the next one."""

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.system import Service, System

__all__ = ["Faults", "start_watched"]

READY = {"orchestrator": "orchestrator.started", "worker": "worker.started"}

CLOSE_CONNECTIONS = (
    'lists:foreach(fun(C) -> rabbit_networking:close_connection(C, "a fault") end, rabbit_networking:connections())'
)


def start_watched(system: System, name: str) -> Service:
    """Start the service *name* (its last word says what it is) so that it can be looked into."""
    kind = name.rsplit(maxsplit=1)[-1]
    command = [sys.executable, "-m", "bench.soak.watched", str(census_file(system.folder, name)), kind]
    return system.start(name, command, READY[kind])


def census_file(folder: Path, name: str) -> Path:
    """Where the service *name* writes what it counts."""
    return folder / f"{name.replace(' ', '-')}.census"


class Faults:
    """Breaks something every few seconds, and mends it."""

    def __init__(self, system: System, *, every: float, seed: int) -> None:
        self._system = system
        self._every = every
        self._chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        # How often each comes, compared with the others: a server takes seconds to come back.
        self._kinds: dict[Callable[[], Awaitable[str]], int] = {
            self._kill: 6,
            self._restart: 3,
            self._freeze: 4,
            self._cut_connections: 3,
            self._kill_mongodb: 2,
            self._restart_mongodb: 1,
            self._kill_rabbitmq: 1,
        }

    async def keep_coming(self) -> None:
        """Break things until cancelled; what is being mended then is mended first."""
        while True:
            await asyncio.sleep(self._every * self._chance.uniform(0.5, 1.5))
            kind = self._chance.choices(list(self._kinds), list(self._kinds.values()))[0]
            fault = asyncio.ensure_future(kind())
            try:
                self.counts[await asyncio.shield(fault)] += 1
            except asyncio.CancelledError:
                self.counts[await fault] += 1
                raise

    def _recruit(self) -> str:
        return self._chance.choice(["recruit orchestrator", "recruit worker"])

    async def _start_again(self, name: str) -> None:
        service = await asyncio.to_thread(start_watched, self._system, name)
        await asyncio.to_thread(service.wait_until_ready)

    async def _kill(self) -> str:
        name = self._recruit()
        await asyncio.to_thread(self._system.services[name].kill)
        await self._start_again(name)
        return f"{name.split()[-1]} killed"

    async def _restart(self) -> str:
        name = self._recruit()
        await asyncio.to_thread(self._system.services[name].stop)
        await self._start_again(name)
        return f"{name.split()[-1]} stopped and started"

    async def _freeze(self) -> str:
        name = self._chance.choice(sorted(self._system.services))
        service = self._system.services[name]
        # Mostly shorter than a heartbeat is allowed to take, and sometimes so long that the broker lets go of it.
        seconds = self._chance.choice([0.5, 1.0, 2.0, 3.0, 25.0])
        service.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            service.signal(signal.SIGCONT)
        return f"{name.split()[-1]} frozen"

    async def _cut_connections(self) -> str:
        await asyncio.to_thread(self._system.rabbit.evaluate, CLOSE_CONNECTIONS)
        return "all connections to RabbitMQ closed"

    async def _kill_mongodb(self) -> str:
        await asyncio.to_thread(self._system.mongo.kill)
        await asyncio.to_thread(self._system.mongo.start)
        return "MongoDB killed"

    async def _restart_mongodb(self) -> str:
        await asyncio.to_thread(self._system.mongo.restart)
        return "MongoDB stopped and started"

    async def _kill_rabbitmq(self) -> str:
        # One that was killed within half a second of a queue's declaration would forget that queue.
        await asyncio.to_thread(self._system.rabbit.settle)
        await asyncio.to_thread(self._system.rabbit.kill)
        await asyncio.to_thread(self._system.rabbit.start)
        return "RabbitMQ killed"
