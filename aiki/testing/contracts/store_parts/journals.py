"""What journals promise: an entry has one place, and only what counts is read."""

import asyncio
from dataclasses import replace

from aiki.engine.payload import Payload
from aiki.engine.state import Pair
from aiki.ports.store import RunChange, Store
from aiki.testing.contracts.store_parts.values import (
    a_run,
    a_run_id,
    an_entry,
    appended,
    changed,
    created,
    dispatched,
    entries,
    loaded,
)

__all__ = ["JournalsContract"]

LONG_JOURNAL = 1500
RACERS = 8


class JournalsContract:
    """Journals: kept entry by entry, read by what counts."""

    async def test_a_journal_is_read_in_order(self, store: Store) -> None:
        run = await created(store, journal=3)
        run = await appended(store, run, *entries(4, 5))

        assert await store.journal(run) == list(entries(1, 5))

    async def test_a_journal_is_read_in_parts(self, store: Store) -> None:
        run = await created(store, journal=5)

        assert await store.journal(run, after_seq=2) == list(entries(3, 5))
        assert await store.journal(run, after_seq=1, limit=2) == list(entries(2, 3))
        assert await store.journal(run, limit=1) == list(entries(1, 1))
        assert await store.journal(run, limit=0) == []
        assert await store.journal(run, after_seq=5) == []

    async def test_a_long_journal_is_read_whole(self, store: Store) -> None:
        run = await created(store, journal=LONG_JOURNAL)

        assert await store.journal(run) == list(entries(1, LONG_JOURNAL))
        assert (await store.journals([run]))[run.run_id] == list(entries(1, LONG_JOURNAL))
        assert (await loaded(store, run.run_id)).last_seq == LONG_JOURNAL

    async def test_entries_alone_do_not_touch_the_run(self, store: Store) -> None:
        run = await created(store)
        await appended(store, run, an_entry(1))

        there = await loaded(store, run.run_id)
        assert there == replace(run, last_seq=1)
        await changed(store, run, holder="worker-1")  # What was loaded before the entry is still good.

    async def test_the_same_entry_again_is_kept_once(self, store: Store) -> None:
        run = await created(store)
        await appended(store, run, *entries(1, 2))
        run = await appended(store, run, *entries(1, 3))

        assert await store.journal(run) == list(entries(1, 3))

    async def test_another_entry_of_the_same_epoch_in_the_same_place_is_stale(self, store: Store) -> None:
        run = await created(store, journal=1)

        other = RunChange.between(
            replace(run, last_seq=0), replace(run, holder="worker-2"), (an_entry(1, payload='"other"'),)
        )

        assert set(await store.commit([other])) == {run.run_id}
        assert await loaded(store, run.run_id) == run
        assert await store.journal(run) == list(entries(1, 1))

    async def test_rule_6_what_an_older_epoch_left_above_the_base_does_not_count(self, store: Store) -> None:
        run = await created(store, journal=2)
        newer = await dispatched(store, run)
        await store.commit([RunChange(run, replace(run, last_seq=4), entries(3, 4))])  # Too late to be heard.

        assert await loaded(store, run.run_id) == newer
        assert newer.last_seq == 2
        assert await store.journal(newer) == list(entries(1, 2))
        assert (await store.journals([newer]))[run.run_id] == list(entries(1, 2))

    async def test_rule_6_what_an_older_epoch_left_above_the_base_is_replaced(self, store: Store) -> None:
        run = await created(store, journal=2)
        newer = await dispatched(store, run)
        await store.commit([RunChange(run, replace(run, last_seq=4), entries(3, 4))])

        newer = await appended(store, newer, *entries(3, 5, epoch=2, payload='"new"'))

        expected = [*entries(1, 2), *entries(3, 5, epoch=2, payload='"new"')]
        assert await store.journal(newer) == expected
        assert (await loaded(store, run.run_id)).last_seq == 5

    async def test_rule_6_what_counts_is_never_replaced(self, store: Store) -> None:
        run = await created(store, journal=2)
        newer = await dispatched(store, run)

        wrong = RunChange.between(newer, newer, entries(2, 3, epoch=2, payload='"new"'))

        assert set(await store.commit([wrong])) == {run.run_id}
        assert (await store.journal(newer))[:2] == list(entries(1, 2))

    async def test_an_entry_of_a_newer_epoch_makes_an_older_one_stale(self, store: Store) -> None:
        run = await created(store)
        newer = await appended(store, await dispatched(store, run), an_entry(1, epoch=2))

        late = RunChange(run, replace(run, last_seq=1), entries(1, 1))

        assert set(await store.commit([late])) == {run.run_id}
        assert await store.journal(newer) == [an_entry(1, epoch=2)]

    async def test_one_of_many_that_race_for_a_place_gets_it(self, store: Store) -> None:
        run = await created(store, journal=1)
        run = await dispatched(store, replace(run, last_seq=0))  # The first entry is a leftover now.
        racers = [
            RunChange(run, replace(run, last_seq=1), (an_entry(1, epoch=2, payload=f'"{number}"'),))
            for number in range(RACERS)
        ]

        verdicts = await asyncio.gather(*[store.commit([change]) for change in racers])

        winners = [list(change.journal) for change, stale in zip(racers, verdicts, strict=True) if not stale]
        assert winners == [await store.journal(run)]

    async def test_what_a_stale_change_leaves_behind_is_not_read(self, store: Store) -> None:
        run = await created(store)
        await changed(store, run, holder="worker-1", pair=Pair(2, "dispatch-2"))

        late = RunChange.between(run, replace(run, holder="worker-2", last_seq=2), entries(1, 2))

        assert set(await store.commit([late])) == {run.run_id}
        there = await loaded(store, run.run_id)
        assert there.last_seq == 0
        assert await store.journal(there) == []

    async def test_a_batch_that_appends_and_dispatches_anew_finds_its_places(self, store: Store) -> None:
        run = await dispatched(store, await created(store))
        stale = replace(run, pair=Pair(1, "dispatch-1"))
        await store.commit([RunChange(stale, replace(stale, last_seq=1), entries(1, 1))])  # An older epoch's leftover.

        after = replace(run, pair=Pair(3, "dispatch-3"), base_seq=2, last_seq=2)
        change = RunChange.between(run, after, entries(1, 2, epoch=2))

        assert not await store.commit([change])
        assert await loaded(store, run.run_id) == change.after
        assert await store.journal(change.after) == list(entries(1, 2, epoch=2))

    async def test_how_far_a_journal_goes_is_told_by_the_entries_that_count(self, store: Store) -> None:
        fresh = await created(store, pair=Pair(0, ""))
        started = await created(store, journal=3)
        dispatched_again = await dispatched(store, await created(store, journal=2))
        went_on = await appended(store, await dispatched(store, await created(store, journal=2)), an_entry(3, epoch=2))

        there = await store.load([run.run_id for run in (fresh, started, dispatched_again, went_on)])

        assert there[fresh.run_id].last_seq == 0
        assert there[started.run_id].last_seq == 3
        assert there[dispatched_again.run_id].last_seq == 2
        assert there[went_on.run_id].last_seq == 3

    async def test_the_journals_of_many_runs_are_read_at_once(self, store: Store) -> None:
        runs = [await created(store, journal=number % 4) for number in range(130)]
        unknown = a_run()

        journals = await store.journals([*runs, unknown])

        assert set(journals) == {run.run_id for run in (*runs, unknown)}
        assert [len(journals[run.run_id]) for run in runs] == [number % 4 for number in range(130)]
        assert list(journals[runs[3].run_id]) == list(entries(1, 3))
        assert not journals[unknown.run_id]
        assert await store.journals([]) == {}

    async def test_runs_whose_names_run_into_each_other_have_journals_of_their_own(self, store: Store) -> None:
        one = await created(store, a_run(run_id := a_run_id(), incarnation="a:b"), journal=1)
        other = await created(store, a_run(f"{run_id}:a", incarnation="b"), journal=2)
        third = await created(store, a_run(f"{run_id}%3Aa", incarnation="b"))

        assert len(await store.journal(one)) == 1
        assert len(await store.journal(other)) == 2
        assert len(await store.journal(third)) == 0

    async def test_entries_may_be_large(self, store: Store) -> None:
        payload = Payload('"' + "ü" * 500_000 + '"')
        large = tuple(an_entry(seq, payload=payload) for seq in range(1, 31))
        run = await appended(store, await created(store), *large)

        assert await store.journal(run) == list(large)
