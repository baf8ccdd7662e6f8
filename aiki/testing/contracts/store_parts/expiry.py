"""What expiry promises: what is over goes when its time has come, journal first, and leaves nothing."""

from dataclasses import replace

from aiki.engine.queries import RunFilter
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange, Store
from aiki.testing.contracts.store_parts.values import (
    a_run,
    an_entry,
    appended,
    at,
    changed,
    created,
    entries,
    loaded,
)

__all__ = ["ExpiryContract"]


class ExpiryContract:
    """Finished runs, removed after their time."""

    async def test_a_run_is_removed_when_its_time_has_come(self, store: Store) -> None:
        old = await created(store, status=RunStatus.COMPLETED, expires_at=at(10), tags=("vip",), journal=3)
        recent = await created(store, status=RunStatus.COMPLETED, expires_at=at(20), journal=3)
        running = await created(store)

        assert await store.expire(now=at(10), limit=10) == 0
        assert await store.expire(now=at(11), limit=10) == 1

        assert set(await store.load([old.run_id, recent.run_id, running.run_id])) == {recent.run_id, running.run_id}
        assert await store.journal(old) == []
        assert await store.journal(recent) == list(entries(1, 3))
        assert (await store.find(RunFilter(tag="vip"), limit=9, cursor=None)).runs == ()

    async def test_as_many_are_removed_as_asked_for_the_oldest_first(self, store: Store) -> None:
        runs = [await created(store, status=RunStatus.FAILED, expires_at=at(number)) for number in range(5)]

        assert await store.expire(now=at(99), limit=2) == 2
        assert set(await store.load([run.run_id for run in runs])) == {run.run_id for run in runs[2:]}
        assert await store.expire(now=at(99), limit=10) == 3
        assert await store.expire(now=at(99), limit=10) == 0

    async def test_rule_16_a_key_that_is_used_again_starts_clean(self, store: Store) -> None:
        earlier = await created(store, status=RunStatus.COMPLETED, expires_at=at(1), journal=4)
        await store.expire(now=at(2), limit=10)

        again = await created(store, a_run(earlier.run_id, incarnation="second"))

        assert (await loaded(store, again.run_id)).last_seq == 0
        assert await store.journal(again) == []
        again = await appended(store, again, an_entry(1, payload='"new"'))
        assert await store.journal(again) == [an_entry(1, payload='"new"')]

    async def test_rule_16_what_an_earlier_incarnation_writes_too_late_is_not_read(self, store: Store) -> None:
        earlier = await created(store, status=RunStatus.COMPLETED, expires_at=at(1))
        await store.expire(now=at(2), limit=10)
        again = await created(store, a_run(earlier.run_id, incarnation="second"))

        await store.commit([RunChange(earlier, replace(earlier, last_seq=1), entries(1, 1))])

        assert await store.journal(again) == []
        assert await loaded(store, again.run_id) == again

    async def test_rule_16_an_expiry_that_was_cut_short_is_finished(self, store: Store) -> None:
        marked = await created(store, status=RunStatus.COMPLETED, expires_at=at(1), journal=3)
        marked = await changed(store, marked, expiring=True)

        assert await store.expire(now=at(2), limit=10) == 1
        assert await store.load([marked.run_id]) == {}
        assert await store.journal(marked) == []

    async def test_rule_16_who_read_the_run_before_it_expired_cannot_change_it(self, store: Store) -> None:
        before = await created(store, status=RunStatus.FAILED, expires_at=at(1))
        await changed(store, before, expiring=True)

        retried = RunChange.between(before, replace(before, status=RunStatus.QUEUED, expires_at=None))

        assert set(await store.commit([retried])) == {before.run_id}
