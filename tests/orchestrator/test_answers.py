"""Queries are answered from the store, dead letters are kept, and neither ever stops the service."""

from dataclasses import replace
from typing import Any

import pytest

from aiki.engine import inbox
from aiki.engine.commands import DeadLetter
from aiki.engine.events import RunOrphaned, SignalSent
from aiki.engine.payload import NULL, Payload
from aiki.engine.queries import (
    DeadLetterFound,
    DeadLetterPage,
    DiscardDeadLetter,
    FindRuns,
    GetDeadLetter,
    GetJournal,
    GetRun,
    GetStats,
    JournalPage,
    ListDeadLetters,
    PresenceNoted,
    Query,
    QueryFailed,
    RedriveDeadLetter,
    ReportPresence,
    RunFilter,
    RunFound,
    RunPage,
    Stats,
)
from aiki.engine.status import RunStatus
from aiki.errors import StoreUnavailableError
from aiki.ports.store import RunChange
from aiki.testing.builders import T0, after, appended, entry, running, started
from tests.orchestrator.world import World, a_request


async def ask(world: World, query: Query) -> Any:
    return await world.client.ask(query, timeout=10)


async def test_a_run_is_found_by_its_id(world: World) -> None:
    await world.orchestrator()
    request = a_request()
    await world.publish(request)
    await world.until_idle()

    found = await ask(world, GetRun(run_id=request.run_id))

    assert isinstance(found, RunFound)
    assert found.run == await world.run(request.run_id)
    assert await ask(world, GetRun(run_id="nobody")) == RunFound(run=None)


async def test_runs_are_found_page_by_page(world: World) -> None:
    await world.orchestrator()
    await world.publish(*(a_request(tags=("red",) if number % 2 else ()) for number in range(10)))
    await world.until_idle()

    first = await ask(world, FindRuns(filter=RunFilter(tag="red"), limit=3))
    second = await ask(world, FindRuns(filter=RunFilter(tag="red"), limit=3, cursor=first.cursor))

    assert isinstance(first, RunPage)
    assert (len(first.runs), len(second.runs)) == (3, 2)
    assert second.cursor is None


async def test_a_page_of_large_runs_is_made_shorter(world: World) -> None:
    await world.orchestrator()
    large = Payload('"' + "x" * 900_000 + '"')
    await world.publish(*(a_request(input=large) for _ in range(10)))
    await world.until_idle()

    seen, cursor, pages = 0, None, 0
    while cursor is not None or not pages:
        page = await ask(world, FindRuns(limit=10, cursor=cursor))
        assert isinstance(page, RunPage)
        seen, cursor, pages = seen + len(page.runs), page.cursor, pages + 1

    assert (seen, pages > 2) == (10, True)


async def test_a_bad_cursor_is_told_and_the_next_query_is_answered(world: World) -> None:
    await world.orchestrator()

    assert isinstance(await ask(world, FindRuns(cursor="nonsense")), QueryFailed)
    assert isinstance(await ask(world, FindRuns()), RunPage)


async def test_a_journal_comes_in_pages(world: World) -> None:
    await world.orchestrator()
    run = running()
    entries = tuple(replace(entry(run), seq=seq) for seq in range(1, 8))
    await world.store.commit([RunChange.between(None, after(run, appended(run, *entries)), entries)])

    first = await ask(world, GetJournal(run_id=run.run_id, limit=5))
    second = await ask(world, GetJournal(run_id=run.run_id, after_seq=5, limit=5))

    assert isinstance(first, JournalPage)
    assert [one.seq for one in first.entries] == [1, 2, 3, 4, 5]
    assert not first.complete
    assert [one.seq for one in second.entries] == [6, 7]
    assert second.complete
    assert await ask(world, GetJournal(run_id="nobody")) == JournalPage(entries=())


async def test_a_page_of_large_entries_is_cut(world: World) -> None:
    await world.orchestrator()
    run = running()
    large = Payload('"' + "x" * 900_000 + '"')
    entries = tuple(replace(entry(run), seq=seq, payload=large) for seq in range(1, 8))
    await world.store.commit([RunChange.between(None, after(run, appended(run, *entries)), entries)])

    seen: list[int] = []
    complete = False
    while not complete:
        page = await ask(world, GetJournal(run_id=run.run_id, after_seq=len(seen)))
        assert isinstance(page, JournalPage)
        seen += [one.seq for one in page.entries]
        complete = page.complete

    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def test_stats_tell_what_is_there(world: World) -> None:
    await world.orchestrator("one")
    await world.publish(a_request(), a_request())
    await world.until_idle()
    await ask(world, presence("w1", seconds=60))

    stats = await ask(world, GetStats())

    assert isinstance(stats, Stats)
    assert stats.runs == {"greet": {"queued": 2}}
    assert [one["id"] for one in stats.orchestrators] == ["one"]
    assert [(one["id"], one["queues"]) for one in stats.workers] == [("w1", ["greet@1.0.0"])]


def presence(worker: str, *, seconds: float) -> ReportPresence:
    return ReportPresence(
        worker=worker,
        queues=("greet@1.0.0",),
        slots=10,
        busy=1,
        host="here",
        process_id=1,
        started_at=T0,
        seconds=seconds,
    )


async def test_a_worker_that_leaves_or_is_not_heard_of_is_gone(world: World) -> None:
    await world.orchestrator()
    assert await ask(world, presence("leaving", seconds=60)) == PresenceNoted()
    await ask(world, presence("silent", seconds=60))

    await ask(world, presence("leaving", seconds=0))
    assert [one["id"] for one in (await ask(world, GetStats())).workers] == ["silent"]

    await world.clock.advance(61)
    assert (await ask(world, GetStats())).workers == ()


def a_letter(**changes: Any) -> DeadLetter:
    letter = DeadLetter(id="letter", reason="no", at=T0, origin="aiki.events.0", body="?")
    return replace(letter, **changes)


async def test_a_parked_letter_is_stored_listed_and_discarded(world: World) -> None:
    orchestrator = await world.orchestrator()

    await world.client.park(a_letter(), timeout=10)
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)

    listed = await ask(world, ListDeadLetters())
    assert isinstance(listed, DeadLetterPage)
    assert [stored.letter for stored in listed.letters] == [a_letter()]
    assert (await ask(world, GetStats())).dead_letters == 1

    discarded = await ask(world, DiscardDeadLetter(letter_id="letter"))
    assert discarded.letter.state == "discarded"
    assert (await ask(world, ListDeadLetters())).letters == ()
    assert (await ask(world, GetDeadLetter(letter_id="letter"))).letter.state == "discarded"


async def test_a_letter_that_is_not_there_is_not_found(world: World) -> None:
    await world.orchestrator()

    for query in (GetDeadLetter(letter_id="x"), RedriveDeadLetter(letter_id="x"), DiscardDeadLetter(letter_id="x")):
        assert await ask(world, query) == DeadLetterFound(letter=None)


async def test_redriving_a_message_puts_it_back_where_it_was_found(world: World) -> None:
    orchestrator = await world.orchestrator()
    await world.client.park(a_letter(origin="greet@1.0.0", body="broken"), timeout=10)
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)

    redriven = await ask(world, RedriveDeadLetter(letter_id="letter"))

    assert redriven.letter.state == "redriven"
    assert world.hub.ready("greet@1.0.0") == (b"broken",)


async def test_redriving_a_signal_that_found_no_room_sends_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = await world.orchestrator()
    request = a_request()
    signals = [SignalSent(id=name, run_id=request.run_id, at=T0, name="go", payload=NULL) for name in ("one", "two")]
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "INBOX_ITEMS_MAX", 1)
        await world.publish(request, *signals)
        await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)
    (stored,) = (await ask(world, ListDeadLetters())).letters
    assert stored.letter.reason == "the inbox of the run is full"

    await ask(world, RedriveDeadLetter(letter_id=stored.letter.id))
    await ask(world, RedriveDeadLetter(letter_id=stored.letter.id))
    await world.until_idle()

    run = await world.run(request.run_id)
    assert run is not None
    assert [item.id for item in run.inbox] == ["one", "two"]


async def test_redriving_a_run_that_killed_its_workers_opens_it_again(world: World) -> None:
    orchestrator = await world.orchestrator()
    request = a_request(recoveries_max=1)
    await world.publish(request)
    while (run := await world.run(request.run_id)) is None or run.status is not RunStatus.DEAD_LETTERED:
        if run is not None and run.status is RunStatus.QUEUED:
            lost = RunOrphaned(
                id=f"lost-{run.pair.epoch}",
                run_id=run.run_id,
                at=T0,
                incarnation=run.incarnation,
                pair=run.pair,
                worker="next",
            )
            await world.publish(started(run), lost)
        await world.until_idle()
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)
    (stored,) = (await ask(world, ListDeadLetters())).letters

    await ask(world, RedriveDeadLetter(letter_id=stored.letter.id))
    await ask(world, RedriveDeadLetter(letter_id=stored.letter.id))
    await world.until_idle()

    again = await world.run(request.run_id)
    assert again is not None
    assert again.status is RunStatus.QUEUED
    assert again.pair.epoch == run.pair.epoch + 1


async def test_a_store_that_is_away_is_told_to_whoever_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.orchestrator()

    async def refuse(*_: Any) -> Any:
        raise StoreUnavailableError("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "load", refuse)
        assert await ask(world, GetRun(run_id="x")) == QueryFailed(reason="it is away")

    assert await ask(world, GetRun(run_id="x")) == RunFound(run=None)


async def test_a_fault_of_ours_fails_one_query_and_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.orchestrator()

    async def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "count", fail)
        assert await ask(world, GetStats()) == QueryFailed(reason="ZeroDivisionError: a bug")

    assert isinstance(await ask(world, GetStats()), Stats)


async def test_a_query_that_nobody_can_read_stops_nobody(world: World) -> None:
    orchestrator = await world.orchestrator()

    world.hub.inject("aiki.queries", b'{"v":1,"query":{"type":"Nonsense"}}')
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)

    assert await ask(world, GetRun(run_id="x")) == RunFound(run=None)
