"""What commits promise: each change on its own, whole or not at all, and one of two that race."""

import asyncio
from dataclasses import replace

import pytest

from aiki.engine.journal import Failure, InboxItem, InboxKind, Wait, WaitKind
from aiki.engine.payload import Payload, dump_payload
from aiki.engine.state import Pair, Parent
from aiki.engine.status import RunStatus
from aiki.errors import RunTooLargeError
from aiki.ports.store import RunChange, Store
from aiki.testing.contracts.store_parts.values import (
    T0,
    a_run,
    a_run_id,
    an_entry,
    appended,
    at,
    changed,
    created,
    entries,
    loaded,
)

__all__ = ["CommitsContract"]

RACERS = 12
CONCURRENT_COMMITS = 500
MEBIBYTE = 1024 * 1024


class CommitsContract:
    """Runs: new, changed, stale."""

    async def test_a_new_run_is_loaded_as_it_was_committed(self, store: Store) -> None:
        run = await created(store)

        assert await store.load([run.run_id]) == {run.run_id: run}

    async def test_a_run_that_nobody_committed_is_missing(self, store: Store) -> None:
        run = await created(store)

        assert await store.load([run.run_id, "nobody"]) == {run.run_id: run}
        assert await store.load([]) == {}

    async def test_everything_that_a_run_remembers_is_kept(self, store: Store) -> None:
        failure = Failure(type="ValueError", message="no", cause=Failure(type="KeyError", message="why"), attempts=3)
        run = a_run(
            status=RunStatus.AWAITING_RETRY,
            cause="event-7",
            base_seq=0,
            holder="worker-1",
            started_at=at(1),
            dispatched_at=at(2),
            lease_until=at(900),
            waits=(Wait(kind=WaitKind.RETRY, operation="task:a:b#1", due_at=at(5), delay_ms=250, name="x"),),
            wake_at=at(5),
            inbox=(
                InboxItem(id="i-1", kind=InboxKind.SIGNAL, name="go", at=at(3), epoch=1, payload=Payload("[1,2]")),
                InboxItem(id="i-2", kind=InboxKind.CHILD, name="run-9", at=at(4), epoch=1, failure=failure),
            ),
            seen=("event-1", "event-2"),
            cancel_requested="event-3",
            pause_requested=True,
            forgiven=("task:a:b#2",),
            recoveries=2,
            recoveries_max=7,
            alone=True,
            key="order-7",
            client="client-1",
            parent=Parent(run_id="run-0", incarnation="first", operation="child:greet:c#1"),
            tags=("vip", "berlin"),
            priority=5,
            note=Payload('"half way"'),
            retention=86400.5,
            timeout_at=at(3600),
            trace="00-abc-def-01",
        )
        run = await created(store, run)
        assert await loaded(store, run.run_id) == run

        ended = await changed(
            store,
            run,
            status=RunStatus.FAILED,
            result=Payload("{}"),
            failure=failure,
            failed_operations=("task:a:b#1",),
            finished_at=at(9),
            expires_at=at(99),
        )
        assert await loaded(store, run.run_id) == ended

    async def test_a_changed_run_takes_the_place_of_what_it_was(self, store: Store) -> None:
        run = await created(store, holder="worker-1", tags=("vip",))

        after = await changed(store, run, status=RunStatus.SLEEPING, holder=None, wake_at=at(60))

        assert after.revision == 2
        assert await loaded(store, run.run_id) == after

    async def test_a_change_of_what_the_run_was_before_is_stale_and_changes_nothing(self, store: Store) -> None:
        before = await created(store)
        now = await changed(store, before, holder="worker-1")

        late = RunChange.between(before, replace(before, holder="worker-2"))

        assert set(await store.commit([late])) == {before.run_id}
        assert await loaded(store, before.run_id) == now

    async def test_a_new_run_is_stale_where_there_is_one_already(self, store: Store) -> None:
        there = await created(store)

        again = RunChange.between(None, a_run(there.run_id, incarnation="second"))

        assert set(await store.commit([again])) == {there.run_id}
        assert await loaded(store, there.run_id) == there

    async def test_a_stale_change_does_not_touch_its_neighbours(self, store: Store) -> None:
        stale, healthy = await created(store), await created(store)
        await changed(store, stale, holder="worker-1")

        changes = [
            RunChange.between(None, a_run(stale.run_id)),
            RunChange.between(stale, replace(stale, holder="worker-2"), (an_entry(1),)),
            RunChange.between(healthy, replace(healthy, holder="worker-3", last_seq=1), (an_entry(1),)),
            RunChange.between(None, a_run(new := a_run_id())),
        ]

        assert set(await store.commit(changes)) == {stale.run_id}
        assert (await loaded(store, healthy.run_id)).holder == "worker-3"
        assert (await loaded(store, healthy.run_id)).last_seq == 1
        assert (await loaded(store, new)).revision == 1

    async def test_changes_given_again_are_kept_once(self, store: Store) -> None:
        run = a_run()
        beginning = RunChange.between(None, run, entries(1, 2))
        going_on = RunChange.between(beginning.after, replace(beginning.after, holder="w", last_seq=3), entries(3, 3))

        assert not await store.commit([beginning])
        assert not await store.commit([beginning])
        assert not await store.commit([going_on])
        assert not await store.commit([going_on])

        there = await loaded(store, run.run_id)
        assert there == going_on.after
        assert await store.journal(there) == list(entries(1, 3))

    async def test_one_of_many_racing_changes_wins(self, store: Store) -> None:
        run = await created(store)
        racers = [RunChange.between(run, replace(run, holder=f"worker-{number}")) for number in range(RACERS)]

        verdicts = await asyncio.gather(*[store.commit([change]) for change in racers])

        winners = [change.after for change, stale in zip(racers, verdicts, strict=True) if not stale]
        assert winners == [await loaded(store, run.run_id)]

    async def test_one_of_many_racing_beginnings_wins(self, store: Store) -> None:
        run_id = a_run_id()
        racers = [RunChange.between(None, a_run(run_id, incarnation=f"no-{number}")) for number in range(RACERS)]

        verdicts = await asyncio.gather(*[store.commit([change]) for change in racers])

        winners = [change.after for change, stale in zip(racers, verdicts, strict=True) if not stale]
        assert winners == [await loaded(store, run_id)]

    async def test_a_change_of_a_run_that_is_gone_does_not_bring_it_back(self, store: Store) -> None:
        run = await created(store, status=RunStatus.COMPLETED, expires_at=at(1))
        assert await store.expire(now=at(2), limit=10) == 1

        late = RunChange.between(run, replace(run, status=RunStatus.QUEUED))

        assert set(await store.commit([late])) == {run.run_id}
        assert await store.load([run.run_id]) == {}

    async def test_a_change_of_an_earlier_incarnation_is_stale_though_its_revision_fits(self, store: Store) -> None:
        earlier = await created(store, status=RunStatus.COMPLETED, expires_at=at(1))
        await store.expire(now=at(2), limit=10)
        now = await created(store, a_run(earlier.run_id, incarnation="second"))
        assert earlier.revision == now.revision

        late = RunChange.between(earlier, replace(earlier, status=RunStatus.QUEUED))

        assert set(await store.commit([late])) == {earlier.run_id}
        assert await loaded(store, now.run_id) == now

    async def test_a_change_that_hits_a_run_that_was_made_again_is_whole(self, store: Store) -> None:
        # The same request may make a run again that had expired, of which a late write knows a later dispatch.
        now = await created(store)
        earlier = replace(now, pair=Pair(3, "dispatch-3"))

        late = RunChange.between(earlier, replace(earlier, holder="worker-1", last_seq=2), entries(1, 2, epoch=3))

        if now.run_id not in await store.commit([late]):
            assert await loaded(store, now.run_id) == late.after
            assert await store.journal(late.after) == list(late.journal)

    async def test_hundreds_of_commits_at_once_are_all_kept(self, store: Store) -> None:
        runs = [a_run() for _ in range(CONCURRENT_COMMITS)]

        verdicts = await asyncio.gather(*[store.commit([RunChange.between(None, run, entries(1, 2))]) for run in runs])

        assert not any(verdicts)
        there = await store.load([run.run_id for run in runs])
        assert len(there) == CONCURRENT_COMMITS
        assert {run.last_seq for run in there.values()} == {2}

    async def test_a_commit_of_nothing_is_none(self, store: Store) -> None:
        run = await created(store)

        assert not await store.commit([])
        assert not await store.commit([RunChange.between(run, run)])
        assert await loaded(store, run.run_id) == run

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\0",
            "a\0b",
            "🙂 — ü",
            "\ud800",
            "a\udfffb\0",
            "$where",
            "a.b.$c",
            "'\"\\\n\r\t\x7f",
            "\u2028",
            "x" * 5000,
        ],
        ids=ascii,
    )
    async def test_any_text_is_kept_as_it_is(self, store: Store, text: str) -> None:
        failure = Failure(type="ValueError", message=text, traceback=text)
        run = await created(store, tags=(text, "plain"), key=text, cause=text, failure=failure, seen=(text,))
        entry = an_entry(1, failure=failure, source=text, name=text, where=text)
        run = await appended(store, run, entry)

        assert await loaded(store, run.run_id) == run
        assert await store.journal(run) == [entry]

    async def test_any_payload_is_kept_to_the_letter(self, store: Store) -> None:
        payloads = [
            dump_payload({"n": 2**80, "a\0b": "\ud800", "$set": {"a.b": [None, 1e308, -0.0]}}),
            dump_payload("é" * 400_000),
            Payload('{"b":1,"a":1,"a":2,"n":1.50}'),
        ]
        for payload in payloads:
            run = await created(store, input=payload, note=payload)
            run = await appended(store, run, an_entry(1, payload=payload))

            assert await loaded(store, run.run_id) == run
            assert (await store.journal(run))[0].payload == payload

    async def test_numbers_of_any_size_are_kept(self, store: Store) -> None:
        run = await created(store, priority=-(2**80), recoveries_max=2**64, retention=1e300)

        assert await loaded(store, run.run_id) == run

    async def test_a_chain_of_causes_may_be_long(self, store: Store) -> None:
        failure = Failure(type="Error", message="the root")
        for depth in range(300):
            failure = Failure(type="Error", message=f"no {depth}", cause=failure)

        run = await created(store, failure=failure)

        stored = (await loaded(store, run.run_id)).failure
        for _ in range(300):
            assert stored is not None
            stored = stored.cause
        assert stored == Failure(type="Error", message="the root")

    async def test_a_run_that_fits_no_document_is_refused_before_anything_is_written(self, store: Store) -> None:
        signals = tuple(
            InboxItem(
                id=f"i-{number}", kind=InboxKind.SIGNAL, name="go", at=T0, epoch=1, payload=Payload("1" * MEBIBYTE)
            )
            for number in range(16)
        )
        neighbour, large = a_run(), a_run(inbox=signals)

        with pytest.raises(RunTooLargeError) as refused:
            await store.commit([RunChange.between(None, neighbour, entries(1, 1)), RunChange.between(None, large)])

        assert refused.value.run_id == large.run_id
        assert await store.load([neighbour.run_id, large.run_id]) == {}
        fitting = await created(store, replace(large, inbox=signals[:13]))
        assert await loaded(store, large.run_id) == fitting

    async def test_two_dispatches_of_one_epoch_are_not_the_same_change(self, store: Store) -> None:
        run = await created(store)
        mine = RunChange.between(run, replace(run, pair=Pair(2, "mine")))
        theirs = RunChange.between(run, replace(run, pair=Pair(2, "theirs")))

        assert not await store.commit([mine])
        assert set(await store.commit([theirs])) == {run.run_id}
