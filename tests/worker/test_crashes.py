"""A worker may die before any of its publishes, and after: the run ends as if nothing had happened."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.retry import fixed
from aiki.engine.status import RunStatus
from aiki.errors import TaskFailedError
from aiki.sdk.context import TaskContext
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow
from tests.worker.world import World, in_virtual_time

WORLDS: list[World] = []


@task(retry=fixed(max_attempts=3, delay=0.5))
async def step(ctx: TaskContext, name: str, seconds: float = 0.0, failures: int = 0) -> str:
    assert_not_recorded(ctx)
    if seconds:
        await asyncio.sleep(seconds)
    if ctx.attempt <= failures:
        raise ValueError(f"{name} is not ready")
    return name


def assert_not_recorded(ctx: TaskContext) -> None:
    """An attempt whose outcome is recorded never runs again. (The worker is told off, and the test sees it end.)"""
    world = WORLDS[-1]
    for entry in world.journal(ctx.run_id):
        if entry.kind in TASK_OUTCOMES and entry.operation is not None and (entry.attempt or 0) >= ctx.attempt:
            key = idempotency_key_of(ctx.run_id, f"incarnation-of-{ctx.run_id}", entry.operation)
            if key == ctx.idempotency_key:
                world.violations.append(f"{entry.operation}, attempt {ctx.attempt}")


TASK_OUTCOMES = (EntryKind.TASK_COMPLETED, EntryKind.TASK_FAILED, EntryKind.ATTEMPT_FAILED)


@workflow
async def onboarding(run: Run, user: str) -> list[Any]:
    found: list[Any] = [await step.run(run, f"create {user}", 0.1)]
    found += await asyncio.gather(*[step.run(run, f"mail {n}", 0.1 * n) for n in range(3)])
    await run.sleep(3600)
    found.append(await step.run(run, "flaky", 0.0, 2))
    try:
        async with asyncio.timeout(5):
            await step.run(run, "slow", 50)
    except TimeoutError:
        found.append("timed out")
    try:
        await step.run(run, "hopeless", 0.0, 9)
    except TaskFailedError as error:
        found.append(error.attempts)
    run.set_status("almost done")
    found.append(str(run.uuid()))
    return found


def essence(entry: JournalEntry) -> tuple[Any, ...]:
    """What an entry says, leaving out who said it, when, and on which line."""
    return entry.kind, entry.operation, entry.payload, entry.attempt, entry.failure and entry.failure.message


def essences(journal: list[JournalEntry]) -> Counter[tuple[Any, ...]]:
    return Counter(essence(entry) for entry in journal if entry.kind is not EntryKind.CLOCK)


async def carried_out(flow: Workflow[..., Any], *args: Any, crashes: dict[int, bool]) -> World:
    world = World(flow, crashes=crashes.items())
    WORLDS.append(world)
    # Losing ten workers in a row is what some of these tests are about.
    await world.run(flow, *args, recoveries_max=100)
    await world.close()
    WORLDS.remove(world)
    assert not world.violations
    return world


FAULT_FREE = in_virtual_time(carried_out(onboarding, "ada", crashes={}))


def test_the_run_without_faults_does_what_it_says() -> None:
    assert FAULT_FREE.runs["run"].status is RunStatus.COMPLETED
    assert FAULT_FREE.result()[:6] == ["create ada", "mail 0", "mail 1", "mail 2", "flaky", "timed out"]
    assert FAULT_FREE.publishes > 15


@pytest.mark.parametrize("arrives", [False, True], ids=["lost", "confirm-lost"])
@pytest.mark.parametrize("publish", range(1, FAULT_FREE.publishes + 1))
def test_a_crash_at_any_publish_changes_nothing(publish: int, arrives: bool) -> None:
    world = in_virtual_time(carried_out(onboarding, "ada", crashes={publish: arrives}))

    assert world.result() == FAULT_FREE.result()
    assert essences(world.journal()) == essences(FAULT_FREE.journal())


def test_a_crash_at_every_second_publish_changes_nothing() -> None:
    world = in_virtual_time(carried_out(onboarding, "ada", crashes={n: n % 4 == 0 for n in range(0, 400, 2)}))

    assert world.result() == FAULT_FREE.result()
    assert essences(world.journal()) == essences(FAULT_FREE.journal())
