"""The client of the soak: starts runs at a steady rate, and looks at what becomes of each."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from aiki import AikiError, Client, RunCancelledError, RunFailedError
from aiki.sdk.handle import Handle
from bench.soak.workflows import (
    chain,
    endless,
    failing,
    family,
    nap,
    persistent,
    remote,
    signalled,
    spread,
)

__all__ = ["KINDS", "Load"]

# More than this in flight means that the system is far behind: then nothing new is started.
IN_FLIGHT_MAX = 2_000

# How long a run may take, faults included.
PATIENCE = 900.0

Start = Callable[[Client, int], Awaitable[tuple[Handle[Any], Any]]]
"""Starts a run; gives its handle, and its result or the error that it has to end with."""


async def _chain(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await chain.enqueue(client, number), 8 * number


async def _keyed(client: Client, number: int) -> tuple[Handle[Any], Any]:
    keyed = chain.with_options(idempotency_key=f"soak-{number}")
    first, second = await asyncio.gather(keyed.enqueue(client, number), keyed.enqueue(client, number))
    return first, (8 * number if first.id == second.id else None)


async def _spread(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await spread.enqueue(client, number), 20 * number + 90


async def _nap(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await nap.enqueue(client, number), 4 * number


async def _paused(client: Client, number: int) -> tuple[Handle[Any], Any]:
    handle = await nap.enqueue(client, number)
    await handle.pause()
    await handle.resume()
    return handle, 4 * number


async def _persistent(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await persistent.enqueue(client, number), 2 * number


async def _family(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await family.enqueue(client, number), 16 * number + 8


async def _remote(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await remote.enqueue(client, number), 2 * number


async def _signalled(client: Client, number: int) -> tuple[Handle[Any], Any]:
    handle = await signalled.enqueue(client, number)
    await handle.send("number", 7)
    return handle, number + 7


async def _failing(client: Client, number: int) -> tuple[Handle[Any], Any]:
    return await failing.enqueue(client, number), RunFailedError


async def _cancelled(client: Client, number: int) -> tuple[Handle[Any], Any]:
    handle = await endless.enqueue(client, number)
    await handle.cancel()
    return handle, RunCancelledError


_KINDS: Sequence[Start] = (
    *(_chain, _chain, _chain, _keyed, _spread, _nap, _nap, _paused, _persistent),
    *(_family, _remote, _signalled, _failing, _cancelled),
)

KINDS: Mapping[str, Start] = {start.__name__.strip("_"): start for start in _KINDS}


class Load:
    """Keeps *rate* runs a second coming; counts what became of them, and keeps nothing else."""

    def __init__(self, client: Client, *, rate: float, seed: int, only: Collection[str] = ()) -> None:
        """*only* some of ``KINDS`` may be wanted."""
        self._client = client
        self._kinds = [KINDS[name] for name in only] or _KINDS
        self._rate = rate
        self._chance = random.Random(seed)
        self._running: set[asyncio.Task[None]] = set()
        self._slowest = 0.0
        self.started = 0
        self.right = 0
        self.wrong: Counter[str] = Counter()
        """Runs that ended otherwise than they should have, by what was seen of them."""
        self.uncertain: Counter[str] = Counter()
        """Requests that were not confirmed in time, by the error that said so."""

    @property
    def in_flight(self) -> int:
        """Runs that somebody waits for now."""
        return len(self._running)

    def take_slowest(self) -> float:
        """Give the seconds that the slowest run took of those that ended since the last call."""
        slowest, self._slowest = self._slowest, 0.0
        return slowest

    async def keep_coming(self) -> None:
        """Start runs until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            if len(self._running) < IN_FLIGHT_MAX:
                self.started += 1
                task = asyncio.create_task(self._one(self._chance.choice(self._kinds), self.started))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Wait until everything that was started is over."""
        while self._running:
            await asyncio.wait(set(self._running))

    async def _one(self, start: Start, number: int) -> None:
        try:
            handle, expected = await start(self._client, number)
        except AikiError as error:
            self.uncertain[type(error).__name__] += 1
            return
        began = time.monotonic()
        seen = await _end_of(handle)
        self._slowest = max(self._slowest, time.monotonic() - began)
        if seen == expected:
            self.right += 1
        else:
            self.wrong[f"{start.__name__.strip('_')}: {seen!r:.60}"] += 1
            await _describe(handle)


async def _describe(handle: Handle[Any]) -> None:
    """Print all that is known of a run that went wrong, while it can still be asked for."""
    try:
        print(await handle.get(), *await handle.journal(), sep="\n  ", flush=True)
    except AikiError as error:
        print(f"run {handle.id}: {error}", flush=True)


async def _end_of(handle: Handle[Any]) -> Any:
    try:
        return await handle.wait_for_completion(timeout=PATIENCE)
    except AikiError as error:
        return type(error)
