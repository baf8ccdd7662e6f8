"""An orchestrator that is killed or cut off at any point: every run completes, and what was recorded is never repeated.

One point after the other, in a fresh world each, until runs come through without reaching the next one.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from aiki.engine.status import RunStatus
from aiki.orchestrator import Orchestrator
from tests.orchestrator.faults import Faults, FaultyBroker, FaultyStore
from tests.orchestrator.world import ScriptedWorker, World, a_request, a_world, entries_of

POINTS_MIN, POINTS_MAX = 20, 400
STEP = 3.0


@dataclass
class Story:
    """What happened in one world."""

    world: World
    worker: ScriptedWorker
    run_ids: list[str]
    faults: Faults


@pytest.mark.timeout(120)
async def test_rules_1_2_6_8_an_orchestrator_may_be_killed_at_any_point() -> None:
    async for story in stories(kill=True):
        await expect_completed_once(story)


@pytest.mark.timeout(120)
async def test_rules_1_2_5_8_broker_and_store_may_fail_at_any_point() -> None:
    async for story in stories(kill=False):
        await expect_completed_once(story)


async def stories(*, kill: bool) -> AsyncIterator[Story]:
    """Bring two runs to their end, with a fault at each point at which an orchestrator can be hit."""
    for point in range(POINTS_MAX):
        faults = Faults(point, kill=kill)
        async with a_world(partitions=1) as world:
            story = Story(world, await world.worker(), [a_request().run_id, a_request().run_id], faults)
            await live_through(story)
            if not faults.hit.is_set():
                assert point > POINTS_MIN
                return
            yield story
    pytest.fail("the points never ended")


async def live_through(story: Story) -> None:
    world, faults = story.world, story.faults
    broker = FaultyBroker(await world.broker(), faults)
    victim = await world.orchestrator("victim", broker=broker, store=FaultyStore(world.store, faults))
    await world.publish(*(a_request(run_id) for run_id in story.run_ids))

    await world.until(lambda: over_or_hit(story), step=STEP)
    if faults.hit.is_set() and faults.kill:
        await bury(world, victim, broker)
        await world.orchestrator("heir")
    await world.until(lambda: are_over(story), step=STEP)


async def over_or_hit(story: Story) -> bool:
    return story.faults.hit.is_set() or await are_over(story)


async def are_over(story: Story) -> bool:
    runs = await story.world.store.load(story.run_ids)
    return len(runs) == len(story.run_ids) and all(run.status.is_final for run in runs.values())


async def bury(world: World, victim: Orchestrator, broker: FaultyBroker) -> None:
    """Let the broker notice that a process is gone. What is left of it here does nothing more, as faults see to."""
    world.hub.isolate(broker.broker)
    await victim.stop(grace=0.0)


async def expect_completed_once(story: Story) -> None:
    for run_id in story.run_ids:
        run = await story.world.run(run_id)
        assert run is not None
        assert run.status is RunStatus.COMPLETED, story.faults.where
        entries = await entries_of(story.world, run_id)
        assert [(entry.seq, entry.payload) for entry in entries] == [(1, "1"), (2, "2")], story.faults.where
        assert run.recoveries == 0, story.faults.where
    # A holder that is well is never disturbed: the worker here says what it does before a marker can overtake it.
    assert set(story.worker.executed.values()) == {1}, story.faults.where
    assert story.world.hub.ready("aiki.dead-letters") == ()
