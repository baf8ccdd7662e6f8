"""One partition's owner: stale knowledge, rivals, poison, and servers that are away."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.decide import Decision, Moment, decide
from aiki.engine.events import CancelRequested, Event, RetryRequested, RunRequested, SignalSent
from aiki.engine.journal import EntryKind, InboxItem, InboxKind, JournalEntry
from aiki.engine.payload import NULL, Payload
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.errors import StoreError
from aiki.orchestrator import OrchestratorSettings
from aiki.orchestrator import fold as folding
from aiki.orchestrator.committer import Committer
from aiki.orchestrator.partition import PartitionContestedError, PartitionOwner
from aiki.orchestrator.patience import StorePatience
from aiki.orchestrator.services import Services
from aiki.orchestrator.stats import Stats
from aiki.orchestrator.timers import Timers
from aiki.ports.broker import Delivery
from aiki.ports.store import RunChange
from aiki.testing.builders import T0, after, completed, entry, failed, orphaned, running, started, suspended
from tests.orchestrator.faults import SwitchedStore
from tests.orchestrator.world import QUEUE, World, a_request, keep


class Rival:
    """An owner of partition 0 that is given its deliveries by hand: it never learns that it lost the partition."""

    def __init__(self, world: World, store: Any = None) -> None:
        settings = OrchestratorSettings()
        patience = StorePatience(world.clock, retry_delay=0.1, retry_delay_max=1.0)
        self.stats = Stats()
        store = store or world.store
        services = Services(world.client, store, world.clock, settings, self.stats, patience)
        self._committer = Committer(store, self.stats, changes_max=100)
        self._owner = PartitionOwner(0, services, committer=self._committer, timers=Timers(services))

    async def subscribe(self) -> None:
        """Take the partition, and leave what comes in its queue."""
        await (await self._owner.subscribe()).close()

    async def handle(self, *events: Event, redelivered: bool = False) -> None:
        """Deal with *events*, as delivered in one message."""
        committing = asyncio.create_task(self._committer.run())
        try:
            await self._owner.handle([Delivery(events, redelivered, 1)])
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)


@pytest.fixture
def single(world: World) -> World:
    """A world with one partition, so that every run is of it."""
    world.hub.partitions = 1
    return world


async def stored(world: World, run_id: str) -> RunState:
    run = await world.run(run_id)
    assert run is not None
    return run


def dispatches(world: World) -> Sequence[ExecuteRun]:
    return [command for command in world.hub.ready(QUEUE) if isinstance(command, ExecuteRun)]


async def test_rule_5_an_event_is_refused_only_after_a_fresh_read(single: World) -> None:
    zombie, owner = Rival(single), Rival(single)
    request = a_request()
    await zombie.handle(request)
    run = await stored(single, request.run_id)
    await owner.handle(orphaned(run))
    run = await stored(single, request.run_id)

    await zombie.handle(started(run), completed(run, worker="w1"))

    assert (await stored(single, request.run_id)).status is RunStatus.COMPLETED
    assert zombie.stats.events_refused == 0


async def test_rule_5_what_is_refused_on_fresh_knowledge_too_changes_nothing(single: World) -> None:
    owner = Rival(single)
    request = a_request()
    await owner.handle(request)
    before = await stored(single, request.run_id)

    await owner.handle(completed(before, worker="stranger"))

    assert await stored(single, request.run_id) == before
    assert owner.stats.events_refused == 1


async def test_rule_5_a_redelivered_message_is_decided_on_fresh_knowledge(single: World) -> None:
    zombie, owner = Rival(single), Rival(single)
    request = a_request()
    await zombie.handle(request)
    await owner.handle(started(await stored(single, request.run_id)))

    await zombie.handle(request, redelivered=True)

    # As the zombie remembers it, nobody has started the run, and its dispatch would be doubted.
    assert single.hub.ready("aiki.events.0") == ()


async def test_a_new_run_is_stored_and_dispatched_without_a_read(single: World) -> None:
    owner = Rival(single)
    request = a_request()

    await owner.handle(request)

    assert (await stored(single, request.run_id)).status is RunStatus.QUEUED
    assert [command.run_id for command in dispatches(single)] == [request.run_id]
    assert owner.stats.runs_loaded == 0


async def test_a_run_that_was_not_new_after_all_is_decided_with_what_is_stored(single: World) -> None:
    first, second = Rival(single), Rival(single)
    request = a_request()
    await first.handle(request)
    await first.handle(started(await stored(single, request.run_id)))
    before = await stored(single, request.run_id)

    await second.handle(request)

    assert await stored(single, request.run_id) == before
    assert len(dispatches(single)) == 1
    assert (second.stats.commits_stale, second.stats.runs_loaded) == (1, 1)


async def test_what_is_said_of_a_run_that_was_not_new_after_all_counts(single: World) -> None:
    first, second = Rival(single), Rival(single)
    request = a_request()
    await first.handle(request)
    run = await stored(single, request.run_id)

    await second.handle(request, started(run), completed(run, worker="w1"))

    assert (await stored(single, request.run_id)).status is RunStatus.COMPLETED
    assert len(dispatches(single)) == 1


@pytest.mark.parametrize(("known", "unknown"), [(0, 2), (7, 3), (300, 2), (0, 350)])
async def test_rule_6_a_run_is_loaded_with_what_its_journal_alone_knows(
    single: World, known: int, unknown: int
) -> None:
    # Whoever stored its journal last was killed before it wrote the run: of a short one, or of one that is long.
    run = replace(running(), base_seq=known)
    plain = [entry(run, seq=seq) for seq in range(1, known + 1)]
    first = entry(run, seq=known + 1, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source="first")
    more = [entry(run, seq=known + seq) for seq in range(2, unknown)]
    second = entry(run, seq=known + unknown, kind=EntryKind.CHILD_STARTED, operation="child:x#2", source="second")
    await keep(single, run, *plain, first, *more, second)
    owner = Rival(single)

    await owner.handle(suspended(replace(run, last_seq=known + unknown)))

    there = await stored(single, run.run_id)
    assert (there.pending, there.learnt_seq) == (("first", "second"), known + unknown)


class StoreWithALateWrite:
    """A store that an entry of *run* gets into just before journals are read: after the run was."""

    def __init__(self, store: Any, run: RunState, late: JournalEntry) -> None:
        self._store = store
        self._write = RunChange(run, run, (late,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def journals(self, runs: Any) -> Any:
        assert not await self._store.commit([self._write])
        return await self._store.journals(runs)

    async def journal(self, run: RunState, **limits: Any) -> Any:
        assert not await self._store.commit([self._write])
        return await self._store.journal(run, **limits)


@pytest.mark.parametrize("recorded", [1, 150])
async def test_rule_6_a_run_takes_over_nothing_that_its_next_dispatch_does_not_count(
    single: World, recorded: int
) -> None:
    signal = InboxItem(id="signal-1", kind=InboxKind.SIGNAL, name="go", at=T0, epoch=1, payload=NULL)
    known = replace(running(), inbox=(signal,))
    kept = await keep(single, known, *[entry(known, seq=seq) for seq in range(1, recorded + 1)])
    late = entry(known, seq=recorded + 1, kind=EntryKind.SIGNAL_RECEIVED, operation="signal:go#1", source=signal.id)
    owner = Rival(single, StoreWithALateWrite(single.store, kept, late))

    await owner.handle(orphaned(kept))

    (order,) = dispatches(single)
    there = await stored(single, kept.run_id)
    assert (there.base_seq, order.base_seq) == (recorded, recorded)
    assert [item.id for item in order.inbox] == ["signal-1"]
    assert there.learnt_seq <= recorded


async def test_rule_6_a_run_that_is_opened_again_knows_what_was_recorded_before_it_was_ended(single: World) -> None:
    run = running()
    over = await keep(single, after(run, failed(run)))
    started_elsewhere = entry(over, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source="child-1")
    assert not await single.store.commit([RunChange(over, over, (started_elsewhere,))])

    await Rival(single).handle(RetryRequested(id="retry-1", run_id=run.run_id, at=T0))

    there = await stored(single, run.run_id)
    assert (there.status, there.base_seq, there.pending) == (RunStatus.QUEUED, 1, ("child-1",))


async def test_a_request_under_a_key_is_decided_on_fresh_knowledge(single: World) -> None:
    owner = Rival(single)

    await owner.handle(a_request(key="order-7"))

    assert owner.stats.runs_loaded == 1


async def test_rule_5_whoever_subscribes_knows_nothing(single: World) -> None:
    zombie, owner = Rival(single), Rival(single)
    request = a_request()
    await zombie.handle(request)
    run = await stored(single, request.run_id)
    await owner.handle(started(run))

    await zombie.subscribe()
    await zombie.handle(started(run))

    assert zombie.stats.runs_loaded == 1
    assert zombie.stats.commits == 1


class ForgetfulStore:
    """A store that keeps a change and says the first time that it was stale, as when its answer was lost."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._has_lied = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, changes: Any) -> Any:
        stale = await self._store.commit(changes)
        if self._has_lied:
            return stale
        self._has_lied = True
        return {change.after.run_id for change in changes}


async def test_rule_2_a_dispatch_that_was_stored_without_hearing_of_it_is_doubted(single: World) -> None:
    owner = Rival(single, ForgetfulStore(single.store))
    request = a_request()

    await owner.handle(request)
    assert dispatches(single) == []
    ((marker,),) = single.hub.ready("aiki.events.0")
    await owner.handle(marker)

    assert [command.pair for command in dispatches(single)] == [(await stored(single, request.run_id)).pair]


async def test_rule_2_the_first_messages_after_subscribing_may_be_old_ones_whatever_their_flags_say(
    single: World,
) -> None:
    gone, heir = Rival(single), Rival(single)
    request = a_request()
    await gone.handle(request)

    await heir.subscribe()
    await heir.handle(request)
    await heir.handle(request)

    assert len(single.hub.ready("aiki.events.0")) == 1  # The marker; the second time, the heir knows that it was sent.


async def test_rule_2_a_dispatch_is_doubted_though_what_came_with_its_cause_made_us_look_twice(single: World) -> None:
    gone, heir = Rival(single), Rival(single)
    request = a_request()
    await gone.handle(request)
    stranger = started(replace(await stored(single, request.run_id), pair=Pair(7, "of a stranger")))

    await heir.subscribe()
    await heir.handle(request, stranger)

    assert len(single.hub.ready("aiki.events.0")) == 1


async def test_rule_2_a_cause_that_is_merely_said_twice_disturbs_nobody(single: World) -> None:
    owner = Rival(single)
    request = a_request()

    await owner.handle(request, request)
    await owner.handle(request)

    assert single.hub.ready("aiki.events.0") == ()
    assert len(dispatches(single)) == 1


async def test_of_two_owners_that_decide_at_once_one_wins_and_the_other_decides_again(single: World) -> None:
    one, other = Rival(single), Rival(single)
    request = a_request()

    await asyncio.gather(one.handle(request), other.handle(request))

    run = await stored(single, request.run_id)
    assert run.pair.epoch == 1
    assert run.revision == 1
    assert [command.pair for command in dispatches(single)] == [run.pair]
    assert one.stats.commits_stale + other.stats.commits_stale == 1


async def test_rule_2_two_owners_with_everything_delivered_to_both_end_with_one_holder(single: World) -> None:
    one, other = Rival(single), Rival(single)
    request = a_request()
    await one.handle(request)
    first = await stored(single, request.run_id)

    await asyncio.gather(*(owner.handle(orphaned(first)) for owner in (one, other)))
    run = await stored(single, request.run_id)
    await asyncio.gather(*(owner.handle(started(run), completed(run, worker="w1")) for owner in (one, other)))

    assert run.pair.epoch == 2
    assert [command.pair for command in dispatches(single)] == [first.pair, run.pair]
    assert (await stored(single, request.run_id)).status is RunStatus.COMPLETED


class StaleStore:
    """A store in which somebody else is always faster."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, changes: Any) -> Any:
        self.commits += 1
        return {change.after.run_id for change in changes}


async def test_an_owner_that_always_comes_late_gives_the_partition_up(single: World) -> None:
    store = StaleStore(single.store)
    zombie = Rival(single, store)

    with pytest.raises(PartitionContestedError):
        await zombie.handle(a_request())

    assert store.commits == 5
    assert dispatches(single) == []


async def test_a_contested_partition_gives_its_deliveries_back(world: World) -> None:
    zombie = await world.orchestrator("zombie", store=StaleStore(world.store))
    request = a_request()
    await world.publish(request)
    await world.until_now(lambda: zombie.stats.commits_stale >= 5)

    await world.orchestrator("owner")
    await world.until(lambda: world.hub.ready(QUEUE))

    assert [command.run_id for command in dispatches(world)] == [request.run_id]


def poisoned(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make every signal of that name impossible to decide."""

    def decide_or_fail(run: RunState | None, event: Event, moment: Moment) -> Decision:
        if isinstance(event, SignalSent) and event.name == name:
            raise ZeroDivisionError("a fault in the engine")
        return decide(run, event, moment)

    monkeypatch.setattr(folding, "decide", decide_or_fail)


async def test_an_event_that_cannot_be_decided_is_parked_and_its_batch_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, "poison")
    request, other = a_request(), a_request()
    signal = SignalSent(id="signal", run_id=request.run_id, at=T0, name="poison", payload=NULL)
    cancel = CancelRequested(id="cancel", run_id=request.run_id, at=T0)
    await world.publish(request, signal, cancel, other)

    await world.orchestrator()
    await world.until_over(request.run_id)
    await world.until_now(lambda: letters_of(world))

    (letter,) = await letters_of(world)
    assert letter.reason == "the event cannot be applied"
    assert "a fault in the engine" in letter.detail
    assert request.run_id in letter.detail
    assert (await stored(world, other.run_id)).status is RunStatus.QUEUED


async def test_a_parked_event_that_is_redriven_goes_where_it_came_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, "poison")
    request = a_request()
    await world.publish(request, SignalSent(id="s", run_id=request.run_id, at=T0, name="poison", payload=NULL))
    await world.orchestrator()
    await world.until_now(lambda: letters_of(world))
    (letter,) = await letters_of(world)
    monkeypatch.undo()

    await world.client.redeliver(letter, timeout=5)
    await world.until_idle()

    assert [item.name for item in (await stored(world, request.run_id)).inbox] == ["poison"]


async def letters_of(world: World) -> list[Any]:
    page = await world.store.dead_letters(limit=10, cursor=None, include_done=True)
    return [found.letter for found in page.letters]


async def test_a_request_for_a_queue_that_cannot_be_is_parked(world: World) -> None:
    good = a_request()
    await world.publish(a_request(queue="aiki.events.0"), a_request(queue="*!"), good)

    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))
    await world.until_now(lambda: two_letters(world))

    assert [command.run_id for command in dispatches(world)] == [good.run_id]


async def two_letters(world: World) -> bool:
    return len(await letters_of(world)) == 2


class PickyStore:
    """A store that can never keep one of the runs."""

    def __init__(self, store: Any, run_id: str) -> None:
        self._store = store
        self._run_id = run_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, changes: Any) -> Any:
        if any(change.after.run_id == self._run_id for change in changes):
            raise StoreError("it is too large")
        return await self._store.commit(changes)


async def test_what_the_store_will_never_keep_is_parked_and_its_batch_goes_on(world: World) -> None:
    requests = [a_request() for _ in range(20)]
    await world.publish(*requests)

    await world.orchestrator(store=PickyStore(world.store, requests[7].run_id))
    await world.until_now(lambda: len(world.hub.ready(QUEUE)) == 19)
    await world.until_now(lambda: letters_of(world))

    (letter,) = await letters_of(world)
    assert "it is too large" in letter.detail
    assert await world.run(requests[7].run_id) is None


async def test_a_command_that_is_too_large_is_parked_alone(world: World) -> None:
    world.hub.message_bytes_max = 50_000
    large = a_request(input=Payload('"' + "x" * 40_000 + '"'))
    await world.publish(large)
    small = [a_request() for _ in range(10)]
    await world.publish(*small)
    world.hub.message_bytes_max = 30_000

    await world.orchestrator()
    await world.until(lambda: len({command.run_id for command in dispatches(world)}) == 10)
    await world.until(lambda: letters_of(world))

    (letter,) = await letters_of(world)
    assert letter.run_id == large.run_id
    assert letter.reason == "the command cannot be sent"


async def test_while_the_store_is_away_events_wait_and_nothing_is_acknowledged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    store = SwitchedStore(world.store)
    orchestrator = await world.orchestrator(store=store)
    store.is_away = True
    requests = [a_request() for _ in range(30)]

    with caplog.at_level("INFO", logger="aiki.orchestrator"):
        await world.publish(*requests)
        await world.until(lambda: store.refused > 20)
        waiting = sum(
            len(world.hub.ready(f"aiki.events.{number}")) + world.hub.held(f"aiki.events.{number}")
            for number in range(4)
        )
        assert waiting == 30
        assert orchestrator.report()["ready"] is False
        store.is_away = False
        await world.until(lambda: len(world.hub.ready(QUEUE)) == 30)

    said = [record.getMessage() for record in caplog.records if record.name == StorePatience.__module__]
    assert [message.split()[0] for message in said] == ["store.unavailable", "store.back"], said
    assert orchestrator.report()["ready"] is True


async def test_events_for_a_run_that_is_not_there_are_dropped(world: World) -> None:
    orchestrator = await world.orchestrator()
    ghost: RunRequested = a_request()

    await world.publish(CancelRequested(id="c", run_id=ghost.run_id, at=T0))
    await world.until_idle()
    await world.until_now(lambda: orchestrator.stats.events_refused == 1)

    assert await world.run(ghost.run_id) is None
    assert await letters_of(world) == []


async def test_bytes_that_are_no_events_become_a_dead_letter_and_the_rest_goes_on(world: World) -> None:
    await world.orchestrator()
    request = a_request()

    for number in range(4):
        world.hub.inject(f"aiki.events.{number}", b"\xff not json")
    await world.publish(request)
    await world.until_now(lambda: world.hub.ready(QUEUE))
    await world.until_now(lambda: four_letters(world))


async def four_letters(world: World) -> bool:
    return len(await letters_of(world)) == 4
