"""Group commit: what comes while a write is under way goes with the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from aiki.errors import StoreError, StoreUnavailableError
from aiki.orchestrator.committer import Committer
from aiki.orchestrator.stats import Stats
from aiki.ports.store import RunChange, Store
from aiki.testing.builders import a_run


class SlowStore:
    """Commits when told to, and remembers what came together."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.proceed = asyncio.Event()
        self.judge: Callable[[list[str]], Collection[str]] = lambda _: ()

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        self.groups.append([change.after.run_id for change in changes])
        await self.proceed.wait()
        return self.judge(self.groups[-1])


@asynccontextmanager
async def a_committer(store: SlowStore, changes_max: int = 100) -> AsyncIterator[Committer]:
    committer = Committer(cast(Store, store), Stats(), changes_max=changes_max)
    task = asyncio.create_task(committer.run())
    try:
        yield committer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def change(run_id: str) -> RunChange:
    return RunChange.between(None, a_run(run_id=run_id))


def submit(committer: Committer, *run_ids: str) -> "asyncio.Task[Any]":
    return asyncio.create_task(_commit(committer, [change(run_id) for run_id in run_ids]))


async def _commit(committer: Committer, changes: list[RunChange]) -> Collection[str]:
    return await committer.commit(changes)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_during_a_write_goes_with_the_next_one() -> None:
    store = SlowStore()
    async with a_committer(store) as committer:
        first = submit(committer, "a")
        await settle()
        others = [submit(committer, "b", "c"), submit(committer, "d")]
        await settle()
        assert store.groups == [["a"]]

        store.proceed.set()
        await asyncio.gather(first, *others)

    assert store.groups == [["a"], ["b", "c", "d"]]


async def test_a_group_is_bounded_but_never_empty() -> None:
    store = SlowStore()
    store.proceed.set()
    async with a_committer(store, changes_max=2) as committer:
        await asyncio.gather(submit(committer, "a", "b", "c"), submit(committer, "d"), submit(committer, "e"))

    assert store.groups == [["a", "b", "c"], ["d", "e"]]


async def test_everybody_learns_what_was_stale() -> None:
    store = SlowStore()
    store.judge = lambda ids: [run_id for run_id in ids if run_id == "b"]
    store.proceed.set()
    async with a_committer(store) as committer:
        one, other = await asyncio.gather(submit(committer, "a"), submit(committer, "b"))

    assert "a" not in one
    assert list(other) == ["b"]


async def test_a_change_that_cannot_be_written_fails_nobody_else() -> None:
    def refuse_b(ids: list[str]) -> Collection[str]:
        if "b" in ids:
            raise StoreError("too large")
        return ()

    store = SlowStore()
    store.judge = refuse_b
    store.proceed.set()
    async with a_committer(store) as committer:
        answers = await asyncio.gather(*(submit(committer, run_id) for run_id in "abc"), return_exceptions=True)

    assert [isinstance(answer, StoreError) for answer in answers] == [False, True, False]


async def test_a_store_that_is_away_is_not_tried_again_for_each_of_a_group() -> None:
    def be_away(_: list[str]) -> Collection[str]:
        raise StoreUnavailableError("gone")

    store = SlowStore()
    store.judge = be_away
    async with a_committer(store) as committer:
        first = submit(committer, "a")
        await settle()
        others = [submit(committer, "b"), submit(committer, "c")]
        store.proceed.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)

    assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
    assert store.groups == [["a"], ["b", "c"]]


async def test_whoever_gives_up_waiting_leaves_the_others_alone() -> None:
    store = SlowStore()
    async with a_committer(store) as committer:
        first = submit(committer, "a")
        await settle()
        impatient, patient = submit(committer, "b"), submit(committer, "c")
        await settle()

        impatient.cancel()
        await settle()
        store.proceed.set()

        assert list(await first) == []
        assert list(await patient) == []
        with pytest.raises(asyncio.CancelledError):
            await impatient
    assert store.groups == [["a"], ["c"]]
