"""What a run says on its way is stored together with what it says next, and nobody waits for that in vain."""

import asyncio
from dataclasses import replace

from aiki.engine.events import CancelRequested
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.testing.builders import T0, appended, completed, started
from tests.orchestrator.world import PATIENCE, World, a_request

# Longer than any test: whatever is dealt with, is so because something else did not wait.
FOR_EVER = 10_000.0


async def a_dispatched_run(world: World) -> RunState:
    request = a_request()
    await world.publish(request)
    await world.until_idle()
    run = await world.run(request.run_id)
    assert run is not None
    return run


async def test_what_a_run_says_on_its_way_is_stored_with_its_end(world: World) -> None:
    orchestrator = await world.orchestrator(company=FOR_EVER)
    run = await a_dispatched_run(world)
    before = replace(orchestrator.stats)

    await world.publish(started(run), appended(run, worker="w1"))
    await world.publish(completed(replace(run, last_seq=1), worker="w1"))
    await world.until_idle()

    over = await world.run(run.run_id)
    assert over is not None
    assert (over.status, over.last_seq) == (RunStatus.COMPLETED, 1)
    assert orchestrator.stats.batches - before.batches == 1
    assert orchestrator.stats.runs_written - before.runs_written == 1


async def test_what_others_say_of_a_run_takes_along_what_it_said_before(world: World) -> None:
    await world.orchestrator(company=FOR_EVER)
    run = await a_dispatched_run(world)

    await world.publish(started(run), CancelRequested(id="cancel", run_id=run.run_id, at=T0))
    await world.until_idle()

    cancelled = await world.run(run.run_id)
    assert cancelled is not None
    assert (cancelled.holder, cancelled.cancel_requested) == ("w1", "cancel")


async def test_nothing_waits_for_company_for_longer_than_it_may(world: World) -> None:
    await world.orchestrator(company=0.001)
    run = await a_dispatched_run(world)

    await world.publish(started(run))
    await world.until_idle()

    begun = await world.run(run.run_id)
    assert begun is not None
    assert begun.status is RunStatus.RUNNING


async def test_not_more_than_half_of_what_may_be_held_waits_for_company(world: World) -> None:
    await world.orchestrator(company=FOR_EVER, prefetch=4)
    run = await a_dispatched_run(world)

    await world.publish(started(run), appended(run, worker="w1"))
    await world.until_idle()

    begun = await world.run(run.run_id)
    assert begun is not None
    assert begun.last_seq == 1


async def test_a_stop_stores_what_waits_for_company(world: World) -> None:
    orchestrator = await world.orchestrator(company=FOR_EVER)
    run = await a_dispatched_run(world)
    await world.publish(started(run))
    await world.until_now(lambda: any(world.hub.held(f"aiki.events.{number}") for number in range(4)))

    async with asyncio.timeout(PATIENCE):
        await orchestrator.stop(grace=FOR_EVER)

    assert not any(world.hub.ready(f"aiki.events.{number}") for number in range(4))
    begun = await world.run(run.run_id)
    assert begun is not None
    assert begun.status is RunStatus.RUNNING
