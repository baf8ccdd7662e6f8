"""MongoDB alone can rebuild every queue: nothing that was stored depends on what the broker held."""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from aiki.engine.commands import ExecuteRun, ExecuteTask
from aiki.engine.events import PauseRequested, ResumeRequested, SignalSent, TaskScheduled
from aiki.engine.journal import EntryKind, JournalEntry, Wait, WaitKind
from aiki.engine.payload import NULL, dump_payload
from aiki.engine.queries import StoredDeadLetter
from aiki.engine.state import Parent, RunState
from aiki.engine.status import RunStatus
from aiki.orchestrator import rebuild
from aiki.orchestrator.letters import redrive_of
from aiki.ports.store import RunChange
from aiki.testing.builders import (
    T0,
    a_run,
    after,
    appended,
    completed,
    entry,
    orphaned,
    running,
    sleeping,
    started,
    suspended,
)
from tests.orchestrator.world import QUEUE, World, a_request, entries_of, keep


async def status_of(world: World, run: RunState) -> RunStatus | None:
    found = await world.run(run.run_id)
    return None if found is None else found.status


async def test_runs_go_on_after_the_broker_lost_everything(world: World) -> None:
    requests = [a_request() for _ in range(40)]
    await world.orchestrator()
    await world.publish(*requests)
    await world.until_idle()
    worker = await world.worker()
    await world.until_now(lambda: len(worker.executed) >= 40)
    await world.until_idle()

    world.hub.lose_everything()
    world.hub.start()
    report = await rebuild(world.store, world.client, world.clock)
    worker = await world.worker("w2")
    await world.until_over(*(request.run_id for request in requests))

    assert report.unfinished == 40
    for request in requests:
        assert [one.payload for one in await entries_of(world, request.run_id)] == ["1", "2"]


async def test_rule_1_a_run_that_was_queued_or_held_gets_a_new_dispatch(world: World) -> None:
    queued, held = await keep(world, a_run()), await keep(world, running())

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: len(world.hub.ready(QUEUE)) == 2)

    assert (report.unfinished, report.dispatched) == (2, 2)
    pairs = {command.run_id: command.pair for command in world.hub.ready(QUEUE) if isinstance(command, ExecuteRun)}
    for run in (queued, held):
        assert pairs[run.run_id].epoch == run.pair.epoch + 1
        assert pairs[run.run_id].dispatch_id != run.pair.dispatch_id


async def test_rebuilding_twice_dispatches_once(world: World) -> None:
    await keep(world, a_run())
    await keep(world, running())

    await rebuild(world.store, world.client, world.clock)
    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_idle()

    assert len(world.hub.ready(QUEUE)) == 2


@pytest.mark.parametrize(("blame", "recoveries"), [(False, 0), (True, 1)])
async def test_a_run_that_was_executing_is_blamed_only_if_its_process_may_have_died_of_it(
    world: World, blame: bool, recoveries: int
) -> None:
    run = await keep(world, running())

    await rebuild(world.store, world.client, world.clock, blame=blame)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    found = await world.run(run.run_id)
    assert found is not None
    assert found.recoveries == recoveries


async def test_a_run_that_sleeps_is_left_to_its_timer_unless_that_is_overdue(world: World) -> None:
    asleep, overdue = await keep(world, sleeping(3600)), await keep(world, sleeping(5))
    await world.clock.advance(10)

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_idle()

    assert (report.unfinished, report.dispatched, report.timers) == (2, 0, 1)
    assert await status_of(world, overdue) is RunStatus.QUEUED
    assert await status_of(world, asleep) is RunStatus.SLEEPING


async def test_a_retry_whose_delay_queue_is_gone_is_brought_back_by_its_timer(world: World) -> None:
    run = running()
    wait = Wait(kind=WaitKind.RETRY, operation="task:x#1", due_at=T0 + timedelta(seconds=10), delay_ms=10_000)
    waiting = await keep(world, after(run, suspended(run, wake_at=wait.due_at, waits=(wait,))))
    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()

    await world.until(lambda: world.hub.ready(QUEUE))

    assert await status_of(world, waiting) is RunStatus.QUEUED
    assert world.clock.now() < T0 + timedelta(seconds=30)  # Long before anything else would look at it.


async def test_rule_8_a_parent_hears_again_of_a_child_that_ended(world: World) -> None:
    parent = running()
    child_run = running(parent=Parent(run_id=parent.run_id, incarnation=parent.incarnation, operation="child:x#1"))
    begun = entry(parent, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source=child_run.run_id)
    parent = after(parent, appended(parent, begun))
    wait = Wait(kind=WaitKind.CHILD, operation="child:x#1", name=child_run.run_id)
    parent = after(parent, suspended(parent, waits=(wait,)))
    await keep(world, parent)
    await keep(world, after(child_run, completed(child_run)))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.outcomes == 1
    (command,) = world.hub.ready(QUEUE)
    assert isinstance(command, ExecuteRun)
    assert [item.payload for item in command.inbox] == [dump_payload("done")]


async def test_what_a_run_had_started_elsewhere_is_started_again(world: World) -> None:
    parent = running()
    begun = entry(parent, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source="a-child-that-was-never-stored")
    parent = after(parent, appended(parent, begun))
    wait = Wait(kind=WaitKind.CHILD, operation="child:x#1", name="a-child-that-was-never-stored")
    await keep(world, after(parent, suspended(parent, waits=(wait,))))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.dispatched == 1
    (command,) = world.hub.ready(QUEUE)
    assert isinstance(command, ExecuteRun)
    assert command.recovered


async def test_only_the_partitions_that_are_asked_for_are_rebuilt(world: World) -> None:
    for _ in range(40):
        await keep(world, a_run())

    reports = [await rebuild(world.store, world.client, world.clock, partitions=[number]) for number in range(4)]

    assert sum(report.unfinished for report in reports) == 40
    assert max(report.unfinished for report in reports) < 40


CHILD = "child-1"


def starts_a_child(run: RunState) -> JournalEntry:
    return entry(run, kind=EntryKind.CHILD_STARTED, operation="child:x#1", source=CHILD, payload=None)


@pytest.mark.parametrize("make", [a_run, running])
async def test_a_run_learns_again_what_only_its_journal_knows(world: World, make: Callable[[], RunState]) -> None:
    # The orchestrator was ended behind the write of the journal, and the broker lost the events.
    run = make()
    await keep(world, run, starts_a_child(run))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))
    await world.until_idle()

    assert report.dispatched == 1
    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert order.recovered
    assert [one.kind for one in order.journal] == [EntryKind.CHILD_STARTED]
    found = await world.run(run.run_id)
    assert found is not None
    assert (found.status, found.pending, found.recoveries) == (RunStatus.QUEUED, (CHILD,), 0)
    assert found.pair.epoch == run.pair.epoch + 1


async def test_rule_8_a_task_that_only_the_journal_knows_is_ordered_when_the_next_holder_says_it_again(
    world: World,
) -> None:
    # The broker lost the order and the events that led to it; the worker that executed says that it does no more.
    run = running()
    await keep(world, run, entry(run, kind=EntryKind.TASK_SCHEDULED, operation="task:x#1", source="task-1"))
    await world.orchestrator()
    await world.publish(orphaned(run))
    await world.until_now(lambda: world.hub.ready(QUEUE))

    dispatched = await world.run(run.run_id)
    assert dispatched is not None
    said = TaskScheduled(
        id="scheduled-again",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=dispatched.pair,
        worker="w1",
        entry=None,
        task_id="task-1",
        queue="elsewhere",
        task="x",
        operation="task:x#1",
        attempt=1,
        input=NULL,
        idempotency_key="key",
    )
    await world.publish(started(dispatched), said)
    await world.until_now(lambda: world.hub.ready("elsewhere"))

    (order,) = world.hub.ready("elsewhere")
    assert isinstance(order, ExecuteTask)
    assert order.task_id == "task-1"


def paused(run: RunState) -> RunState:
    return after(run, PauseRequested(id="pause", run_id=run.run_id, at=T0))


async def test_a_paused_run_learns_again_what_only_its_journal_knows(world: World) -> None:
    # It was paused before its start was written, and the start of the child was not written either.
    run = a_run()
    await keep(world, paused(run), starts_a_child(run))

    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_idle()

    assert await status_of(world, run) is RunStatus.PAUSED
    await world.publish(ResumeRequested(id="resume", run_id=run.run_id, at=T0))
    await world.until_now(lambda: world.hub.ready(QUEUE))
    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert order.recovered, "what it had started elsewhere may have been lost with the broker"
    found = await world.run(run.run_id)
    assert found is not None
    assert (found.status, found.pending) == (RunStatus.QUEUED, (CHILD,))


@pytest.mark.parametrize("make", [a_run, running])
async def test_a_run_is_told_of_the_end_of_a_child_that_only_its_journal_knows(
    world: World, make: Callable[[], RunState]
) -> None:
    parent = make()
    await keep(world, parent, starts_a_child(parent))
    family = Parent(run_id=parent.run_id, incarnation=parent.incarnation, operation="child:x#1")
    child = running(run_id=CHILD, parent=family)
    await keep(world, after(child, completed(child)))

    report = await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.outcomes == 1
    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert [item.id for item in order.inbox] == [CHILD]


async def test_rule_17_what_the_journal_says_has_arrived_does_not_arrive_again(world: World) -> None:
    run = running()
    run = after(run, SignalSent(id="signal", run_id=run.run_id, at=T0, name="go", payload=NULL))
    received = [
        entry(run, seq=seq, kind=EntryKind.SIGNAL_RECEIVED, source=source, payload=dump_payload("x" * 700_000))
        for seq, source in ((1, "signal"), (2, "another"))
    ]
    await keep(world, run, *received)

    await rebuild(world.store, world.client, world.clock)
    await world.orchestrator()
    await world.until_now(lambda: world.hub.ready(QUEUE))

    (order,) = world.hub.ready(QUEUE)
    assert isinstance(order, ExecuteRun)
    assert (order.inbox, order.base_seq) == ((), 2)


async def test_a_run_that_knows_its_journal_is_told_nothing_twice(world: World) -> None:
    run = running()
    await keep(world, run, entry(run, seq=1), entry(run, seq=2))

    await rebuild(world.store, world.client, world.clock)

    said = [event for number in range(4) for events in world.hub.ready(f"aiki.events.{number}") for event in events]
    assert [event.type for event in said] == ["RunOrphaned"]


def buried() -> RunState:
    """A run that killed its workers, the last one alone."""
    run = running(recoveries_max=0)
    run = after(run, orphaned(run))
    run = after(run, started(run))
    return after(run, orphaned(run))


async def letters_of(world: World) -> Sequence[StoredDeadLetter]:
    page = await world.store.dead_letters(limit=100, cursor=None, include_done=True)
    return page.letters


async def a_buried_run_with_its_letter(world: World) -> tuple[RunState, StoredDeadLetter]:
    run = await keep(world, buried())
    await rebuild(world.store, world.client, world.clock)
    orchestrator = await world.orchestrator()
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 1)
    (letter,) = await letters_of(world)
    return run, letter


async def test_a_letter_that_was_lost_with_the_broker_is_written_again_from_the_run(world: World) -> None:
    # The run was stored as buried. Whoever had to send its letter was ended, or the letter was in a queue that is gone.
    run = await keep(world, buried())

    reports = [await rebuild(world.store, world.client, world.clock) for _ in range(2)]
    orchestrator = await world.orchestrator()
    await world.until_now(lambda: orchestrator.stats.dead_letters_stored == 2)

    assert [report.letters for report in reports] == [1, 1]
    (stored,) = await letters_of(world)
    assert (stored.letter.run_id, stored.letter.reason) == (run.run_id, "the run kills its workers")
    assert (stored.state, stored.times) == ("parked", 1)


async def test_a_redrive_that_was_lost_with_the_broker_is_made_again(world: World) -> None:
    run, letter = await a_buried_run_with_its_letter(world)
    await world.store.handle_dead_letter(letter.letter.id, "redriven", at=T0)

    report = await rebuild(world.store, world.client, world.clock)
    await world.until_now(lambda: world.hub.ready(QUEUE))

    assert report.letters == 1
    assert await status_of(world, run) is RunStatus.QUEUED


async def test_rule_17_a_redrive_that_was_not_lost_counts_once(world: World) -> None:
    run, letter = await a_buried_run_with_its_letter(world)
    await world.store.handle_dead_letter(letter.letter.id, "redriven", at=T0)

    for _ in range(2):
        await rebuild(world.store, world.client, world.clock)
    await world.publish(redrive_of(letter, run.run_id, T0))
    await world.until_idle()

    found = await world.run(run.run_id)
    assert found is not None
    assert found.pair.epoch == run.pair.epoch + 1
    assert len(found.seen) == 1


async def test_a_letter_that_is_there_is_left_to_whoever_reads_it(world: World) -> None:
    run, letter = await a_buried_run_with_its_letter(world)

    parked = await rebuild(world.store, world.client, world.clock)
    await world.store.handle_dead_letter(letter.letter.id, "discarded", at=T0)
    discarded = await rebuild(world.store, world.client, world.clock)

    assert (parked.letters, discarded.letters) == (0, 0)
    assert await status_of(world, run) is RunStatus.DEAD_LETTERED


async def test_every_buried_run_of_the_partitions_that_are_asked_for_gets_its_letter(world: World) -> None:
    changes = [RunChange.between(None, buried()) for _ in range(120)]
    assert not await world.store.commit(changes)

    reports = [await rebuild(world.store, world.client, world.clock, partitions=[number]) for number in range(4)]

    assert sum(report.letters for report in reports) == len(changes)
    assert max(report.letters for report in reports) < len(changes)
