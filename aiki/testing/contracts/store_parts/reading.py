"""What listings promise: the runs that are asked for, each once, in order."""

from collections.abc import Sequence

import pytest

from aiki.engine.queries import RunFilter
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import StoreError
from aiki.ports.store import Store
from aiki.testing.contracts.store_parts.values import PARTITIONS, a_run_id, at, changed, created

__all__ = ["ReadingContract"]

EVERYWHERE = range(PARTITIONS)


def ids(runs: Sequence[RunState]) -> list[str]:
    return [run.run_id for run in runs]


async def found(store: Store, wanted: RunFilter, *, limit: int = 100) -> list[str]:
    return ids((await store.find(wanted, limit=limit, cursor=None)).runs)


class ReadingContract:
    """Partitions, due and unfinished runs, listings, counts."""

    async def test_the_first_call_decides_the_number_of_partitions(self, store: Store) -> None:
        assert await store.partitions(PARTITIONS) == PARTITIONS
        assert await store.partitions(PARTITIONS * 2) == PARTITIONS

    async def test_the_earliest_due_run_comes_first(self, store: Store) -> None:
        later = await created(store, wake_at=at(30))
        sooner = await created(store, wake_at=at(10))
        leased = await created(store, wake_at=at(90), lease_until=at(20))
        await created(store)

        assert ids(await store.due(EVERYWHERE, before=at(100), limit=10)) == ids([sooner, leased, later])
        assert ids(await store.due(EVERYWHERE, before=at(100), limit=2)) == ids([sooner, leased])
        assert ids(await store.due(EVERYWHERE, before=at(20), limit=10)) == ids([sooner])

    async def test_a_due_run_is_the_run_as_it_is(self, store: Store) -> None:
        run = await created(store, status=RunStatus.SLEEPING, wake_at=at(10))

        assert await store.due(EVERYWHERE, before=at(11), limit=1) == [run]

    async def test_due_runs_are_found_by_partition(self, store: Store) -> None:
        here = await created(store, run_id=a_run_id(3), wake_at=at(1))
        there = await created(store, run_id=a_run_id(4), wake_at=at(2))

        assert ids(await store.due([3], before=at(9), limit=10)) == ids([here])
        assert ids(await store.due([4, 7], before=at(9), limit=10)) == ids([there])
        assert ids(await store.due([3, 4], before=at(9), limit=10)) == ids([here, there])
        assert not await store.due([], before=at(9), limit=10)

    async def test_a_run_that_moved_on_is_due_no_more(self, store: Store) -> None:
        run = await created(store, status=RunStatus.SLEEPING, wake_at=at(1))
        woken = await changed(store, run, status=RunStatus.QUEUED, wake_at=None)
        assert not await store.due(EVERYWHERE, before=at(9), limit=10)

        run = await changed(store, woken, status=RunStatus.SLEEPING, timeout_at=at(2))
        assert ids(await store.due(EVERYWHERE, before=at(9), limit=10)) == [run.run_id]

        await changed(store, run, status=RunStatus.COMPLETED)
        assert not await store.due(EVERYWHERE, before=at(9), limit=10)

    async def test_unfinished_runs_are_paged_by_id(self, store: Store) -> None:
        runs = sorted([await created(store) for _ in range(7)], key=lambda run: run.run_id)
        await changed(store, runs.pop(3), status=RunStatus.FAILED)

        first = await store.unfinished(EVERYWHERE, after=None, limit=4)
        second = await store.unfinished(EVERYWHERE, after=first[-1].run_id, limit=4)

        assert list(first) == runs[:4]
        assert list(second) == runs[4:]
        assert not await store.unfinished(EVERYWHERE, after=second[-1].run_id, limit=4)

    async def test_unfinished_runs_are_found_by_partition(self, store: Store) -> None:
        here = await created(store, run_id=a_run_id(1))
        await created(store, run_id=a_run_id(2))

        assert ids(await store.unfinished([1], after=None, limit=10)) == [here.run_id]
        assert not await store.unfinished([], after=None, limit=10)

    async def test_a_run_that_is_tried_again_is_unfinished_again(self, store: Store) -> None:
        run = await created(store, status=RunStatus.FAILED, expires_at=at(60))
        assert not await store.unfinished(EVERYWHERE, after=None, limit=10)

        await changed(store, run, status=RunStatus.QUEUED, expires_at=None)
        assert ids(await store.unfinished(EVERYWHERE, after=None, limit=10)) == [run.run_id]
        assert await store.expire(now=at(99), limit=10) == 0

    async def test_the_newest_runs_are_listed_first(self, store: Store) -> None:
        runs = [await created(store, created_at=at(seconds)) for seconds in (5, 1, 3)]

        assert await found(store, RunFilter()) == ids([runs[0], runs[2], runs[1]])

    async def test_runs_are_listed_by_what_they_are(self, store: Store) -> None:
        plain = await created(store, created_at=at(1))
        other = await created(store, created_at=at(2), workflow="fulfil", tags=("vip", "berlin"))
        newer = await created(store, created_at=at(3), version="2.0.0", tags=("vip",))
        ended = await created(store, created_at=at(4), status=RunStatus.COMPLETED)

        over = (RunStatus.COMPLETED, RunStatus.FAILED)
        for wanted, expected in [
            (RunFilter(workflow="greet"), [ended, newer, plain]),
            (RunFilter(workflow="greet", version="2.0.0"), [newer]),
            (RunFilter(version="1.0.0"), [ended, other, plain]),
            (RunFilter(statuses=over), [ended]),
            (RunFilter(statuses=(RunStatus.QUEUED, RunStatus.COMPLETED)), [ended, newer, other, plain]),
            (RunFilter(workflow="greet", statuses=(RunStatus.QUEUED,)), [newer, plain]),
            (RunFilter(tag="vip"), [newer, other]),
            (RunFilter(tag="berlin", workflow="greet"), []),
            (RunFilter(created_after=at(2)), [ended, newer]),
            (RunFilter(created_before=at(2)), [plain]),
            (RunFilter(created_after=at(1), created_before=at(4)), [newer, other]),
            (RunFilter(workflow="nothing"), []),
        ]:
            assert await found(store, wanted) == ids(expected), wanted

    async def test_runs_are_listed_by_what_they_have_become(self, store: Store) -> None:
        run = await created(store, tags=("old",))
        await changed(store, run, status=RunStatus.FAILED, tags=("new",))

        assert await found(store, RunFilter(statuses=(RunStatus.FAILED,))) == [run.run_id]
        assert await found(store, RunFilter(statuses=(RunStatus.QUEUED,))) == []
        assert await found(store, RunFilter(tag="new")) == [run.run_id]
        assert await found(store, RunFilter(tag="old")) == []

    @pytest.mark.parametrize("wanted", [RunFilter(), RunFilter(workflow="greet"), RunFilter(tag="x")], ids=str)
    async def test_pages_hold_every_run_once(self, store: Store, wanted: RunFilter) -> None:
        # Several of one moment: the order within it must be as firm as that between moments.
        runs = [await created(store, created_at=at(number // 3), tags=("x",)) for number in range(11)]

        listed: list[str] = []
        cursor: str | None = None
        for _ in range(6):
            page = await store.find(wanted, limit=2, cursor=cursor)
            listed += ids(page.runs)
            cursor = page.cursor
            assert cursor is not None or len(listed) == len(runs)
            await created(store, created_at=at(99), tags=("x",))  # What comes meanwhile disturbs nothing.

        assert cursor is None
        assert len(listed) == len(runs)
        assert set(listed) == set(ids(runs))

    async def test_queued_runs_of_some_age_are_paged_while_they_come_and_go(self, store: Store) -> None:
        runs = [await created(store, created_at=at(number)) for number in range(6)]
        await created(store, created_at=at(0), status=RunStatus.RUNNING)
        wanted = RunFilter(statuses=(RunStatus.QUEUED,), created_before=at(5))

        first = await store.find(wanted, limit=2, cursor=None)
        for run in (*first.runs, runs[1]):
            await changed(store, run, status=RunStatus.RUNNING)
        second = await store.find(wanted, limit=2, cursor=first.cursor)

        assert ids(first.runs) == ids([runs[4], runs[3]])
        assert ids(second.runs) == ids([runs[2], runs[0]])
        assert second.cursor is None

    async def test_a_page_that_holds_the_rest_has_no_cursor(self, store: Store) -> None:
        await created(store)
        await created(store)

        assert (await store.find(RunFilter(), limit=2, cursor=None)).cursor is None
        assert (await store.find(RunFilter(), limit=1, cursor=None)).cursor is not None

    @pytest.mark.parametrize("cursor", ["x", "", "äöü", "W10", "WzEsMl0", "eyJhIjoxfQ", "\0", "a" * 500], ids=ascii)
    async def test_a_cursor_that_is_none_of_ours_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(StoreError, match="is no cursor"):
            await store.find(RunFilter(), limit=2, cursor=cursor)
        with pytest.raises(StoreError, match="is no cursor"):
            await store.dead_letters(limit=2, cursor=cursor, include_done=True)

    async def test_runs_are_counted_by_workflow_and_status(self, store: Store) -> None:
        assert await store.count() == {}
        for status in (RunStatus.QUEUED, RunStatus.QUEUED, RunStatus.FAILED):
            await created(store, status=status)
        await created(store, workflow="fulfil")

        assert await store.count() == {"greet": {"queued": 2, "failed": 1}, "fulfil": {"queued": 1}}
