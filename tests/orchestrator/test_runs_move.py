"""Runs move from request to result, and everybody who has to hear of it does."""

from typing import Any

from aiki.engine.commands import AnnounceAcceptance, AnnounceOutcome, ExecuteRun
from aiki.engine.ids import partition_of
from aiki.engine.payload import dump_payload
from aiki.engine.status import RunStatus
from aiki.orchestrator import OrchestratorSettings
from aiki.testing.builders import T0
from tests.orchestrator.world import QUEUE, World, a_request, entries_of


async def test_a_request_becomes_a_run_and_its_dispatch(world: World) -> None:
    await world.orchestrator()
    request = a_request()

    await world.publish(request)
    await world.until_now(lambda: world.hub.ready(QUEUE))

    run = await world.run(request.run_id)
    assert run is not None
    assert run.status is RunStatus.QUEUED
    (command,) = world.hub.ready(QUEUE)
    assert isinstance(command, ExecuteRun)
    assert command.pair == run.pair
    assert command.input == request.input


async def test_a_run_goes_through_a_nap_to_its_end_and_each_task_runs_once(world: World) -> None:
    await world.orchestrator()
    worker = await world.worker()
    request = a_request()

    await world.publish(request)
    await world.until_over(request.run_id)

    run = await world.run(request.run_id)
    assert run is not None
    assert (run.status, run.result) == (RunStatus.COMPLETED, dump_payload("done"))
    assert [entry.payload for entry in await entries_of(world, request.run_id)] == ["1", "2"]
    assert set(worker.executed.values()) == {1}
    assert [command.base_seq for command in worker.commands] == [0, 1]
    assert worker.told == []


async def test_many_runs_of_all_partitions_end_at_the_same_time(world: World) -> None:
    orchestrator = await world.orchestrator()
    worker = await world.worker()
    requests = [a_request() for _ in range(200)]

    await world.publish(*requests)
    await world.until_over(*(request.run_id for request in requests))

    assert len(worker.executed) == 400
    assert set(worker.executed.values()) == {1}
    assert orchestrator.active == frozenset(range(4))
    assert orchestrator.stats.batches < orchestrator.stats.messages


async def test_the_client_hears_of_acceptance_and_outcome(world: World) -> None:
    await world.orchestrator()
    await world.worker(naps=False)
    notices = await world.client.consume_notices("ada")
    request = a_request(client="ada", answer=True)

    await world.publish(request)
    await world.until_over(request.run_id)

    heard: list[Any] = []
    while not any(isinstance(notice, AnnounceOutcome) for notice in heard):
        heard += [delivery.body for delivery in await notices.receive()]
    assert [notice.existing for notice in heard if isinstance(notice, AnnounceAcceptance)] == [False]
    assert [notice.result for notice in heard if isinstance(notice, AnnounceOutcome)] == [dump_payload("done")]


async def test_a_long_journal_travels_in_part(world: World) -> None:
    await world.orchestrator(journal_entries=3)
    worker = await world.worker(steps=3)
    request = a_request()

    await world.publish(request)
    await world.until_over(request.run_id)

    assert [len(command.journal) for command in worker.commands] == [0, 1, 2]


async def test_a_large_journal_is_cut_before_the_entry_that_does_not_fit(world: World) -> None:
    assert OrchestratorSettings().journal_bytes == 256 * 1024
    await world.orchestrator(journal_bytes=400)  # One entry is estimated at 250 bytes and its payload.
    request = a_request()
    await world.publish(request)
    worker = await world.worker(steps=2)
    await world.until_over(request.run_id)

    assert [len(command.journal) for command in worker.commands] == [0, 1]


async def test_a_run_that_is_to_start_later_is_dispatched_then(world: World) -> None:
    await world.orchestrator()
    request = a_request(start_at=T0.replace(hour=1))

    await world.publish(request)
    await world.until_idle()
    await world.clock.advance(3500)
    assert world.hub.ready(QUEUE) == ()

    await world.until(lambda: world.hub.ready(QUEUE))
    assert world.clock.now() >= T0.replace(hour=1)


async def test_events_of_a_message_are_decided_in_order_and_written_once(world: World) -> None:
    requests = [a_request() for _ in range(50)]
    partition = 0
    for request in requests:
        await world.publish(request)

    orchestrator = await world.orchestrator()
    await world.until_idle()

    assert partition in orchestrator.active
    assert orchestrator.stats.runs_written == 50
    assert orchestrator.stats.commits <= 8


async def test_events_in_the_wrong_partition_are_sent_to_the_right_one(world: World) -> None:
    orchestrator = await world.orchestrator()
    requests = [a_request() for _ in range(20)]
    strays = [request for request in requests if partition_of(request.run_id, 4) != 0]

    for request in requests:
        await world.publish(request, partition=0)
    await world.until_now(lambda: len(world.hub.ready(QUEUE)) == 20)

    assert orchestrator.stats.events_forwarded == len(strays)
