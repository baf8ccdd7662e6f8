"""Finished runs are removed when their time has come, at the expense of nobody."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from aiki.engine.state import RunState
from aiki.errors import StoreUnavailableError
from aiki.orchestrator import expiry
from aiki.orchestrator.expiry import Expiry
from aiki.testing.builders import after, completed, running
from aiki.testing.clock import ManualClock
from tests.orchestrator.world import World, keep, services_of


async def finished(world: World, number: int) -> Sequence[RunState]:
    runs = [running(retention=60.0) for _ in range(number)]
    return [await keep(world, after(run, completed(run))) for run in runs]


async def left_of(world: World, runs: Sequence[RunState]) -> int:
    return sum([await world.run(run.run_id) is not None for run in runs])


class StoreExpiredByTwo:
    """A store in which another orchestrator is always a little faster: it removes some of each page."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def expire(self, *, now: Any, limit: int) -> int:
        await self._store.expire(now=now, limit=limit - 1)
        return int(await self._store.expire(now=now, limit=1))


class SlowStore:
    """A store with two pages to remove, which takes two seconds for each, and ten to fail where it *fails* first."""

    def __init__(self, clock: ManualClock, *, fails: bool) -> None:
        self.begun: list[float] = []
        self._clock = clock
        self._fails = fails
        self._left = 2

    async def expire(self, *, now: Any, limit: int) -> int:
        if self._fails:
            self._fails = False
            await self._clock.sleep(10)
            raise StoreUnavailableError("it is away")
        self.begun.append(self._clock.monotonic())
        await self._clock.sleep(2)
        self._left -= 1
        return limit if self._left >= 0 else 0


async def test_finished_runs_are_removed_when_their_time_has_come_and_not_before(world: World) -> None:
    runs = await finished(world, 1)
    expiring = Expiry(services_of(world))

    await expiring.remove_expired()
    left_before = await left_of(world, runs)
    await world.clock.advance(61)
    await expiring.remove_expired()

    assert left_before == 1
    assert await left_of(world, runs) == 0


async def test_an_orchestrator_removes_them_though_nobody_asks(world: World) -> None:
    orchestrator = await world.orchestrator()
    runs = await finished(world, 3)
    await world.clock.advance(61)

    await world.until(lambda: orchestrator.stats.runs_expired == len(runs))

    assert await left_of(world, runs) == 0


async def test_two_that_remove_at_once_do_not_stop_each_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_PAGE", 4)
    runs = await finished(world, 12)
    await world.clock.advance(61)

    await Expiry(replace(services_of(world), store=StoreExpiredByTwo(world.store))).remove_expired()

    assert await left_of(world, runs) == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_it_rests_after_each_page_for_as_long_as_that_took_and_not_for_an_outage(
    world: World, fails: bool
) -> None:
    store = SlowStore(world.clock, fails=fails)

    world.background(Expiry(services_of(world, store=store)).remove_expired())
    await world.clock.advance(30)

    first, second, third = store.begun
    assert (second - first, third - second) == pytest.approx((4, 4))
