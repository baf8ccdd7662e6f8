"""A worker may die before any of its publishes, and after: the run ends as if nothing had happened."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.payload import dump_payload, load_payload
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


def test_a_crash_at_every_fourth_publish_changes_nothing() -> None:
    world = in_virtual_time(carried_out(onboarding, "ada", crashes={n: n % 8 == 0 for n in range(4, 400, 4)}))

    assert world.result() == FAULT_FREE.result()
    assert essences(world.journal()) == essences(FAULT_FREE.journal())


# -- any program, any crashes ------------------------------------------------------------------------

Program = list[Any]
"""Operations one after the other: ["task", name, seconds, failures], ["sleep", seconds], ["all", [programs…]], …"""


async def interpret(run: Run, program: Program) -> list[Any]:
    return [await _DO[operation](run, *rest) for operation, *rest in program]


async def _task(run: Run, name: str, seconds: float, failures: int) -> Any:
    try:
        return await step.run(run, name, seconds, failures)
    except TaskFailedError as error:
        return f"{name} failed {error.attempts} times"


async def _sleep(run: Run, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


async def _all(run: Run, programs: list[Program]) -> Any:
    return await asyncio.gather(*[interpret(run, program) for program in programs])


async def _group(run: Run, programs: list[Program]) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(interpret(run, program)) for program in programs]
    return [task.result() for task in tasks]


async def _within(run: Run, seconds: float, program: Program) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await interpret(run, program)
    except TimeoutError:
        return "timed out"


async def _random(run: Run) -> Any:
    return [str(run.uuid()), run.random.random()]


_DO: dict[str, Callable[..., Any]] = {
    "task": _task,
    "sleep": _sleep,
    "all": _all,
    "group": _group,
    "within": _within,
    "random": _random,
}


@workflow
async def interpreted(run: Run, program: list[Any]) -> list[Any]:
    return await interpret(run, program)


# Deadlines and durations are kept apart, so that a crash cannot change which of the two comes first:
# a repeated attempt takes longer, and a repeated deadline starts anew.
TASKS = st.tuples(
    st.just("task"), st.sampled_from("abc"), st.sampled_from([0.0, 0.01, 0.1]), st.sampled_from([0, 0, 0, 1, 2, 5])
)
SLEEPS = st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.2, 1.0, 86_400.0]))
SIMPLE = st.one_of(TASKS, SLEEPS, st.tuples(st.just("random")))


def programs(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(st.lists(inner, max_size=3).map(list), min_size=1, max_size=3)
    hopeless = st.tuples(st.just("within"), st.just(0.5), st.just([["task", "endless", 1e6, 0]]))
    generous = st.tuples(st.just("within"), st.just(1e8), st.lists(inner, max_size=3))
    return st.one_of(st.tuples(st.sampled_from(["all", "group"]), some), hopeless, generous)


PROGRAMS = st.lists(st.recursive(SIMPLE, programs, max_leaves=8), min_size=1, max_size=5)
CRASHES = st.dictionaries(st.integers(min_value=1, max_value=40), st.booleans(), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, crashes=CRASHES)
def test_no_crash_changes_what_any_program_gives(program: list[Any], crashes: dict[int, bool]) -> None:
    program = load_payload(dump_payload(program))  # Tuples become lists, as on their way to a worker.
    calm = in_virtual_time(carried_out(interpreted, program, crashes={}))
    stormy = in_virtual_time(carried_out(interpreted, program, crashes=crashes))

    assert stormy.result() == calm.result()
    assert essences(stormy.journal()) == essences(calm.journal())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, crash=st.integers(min_value=2, max_value=30), arrives=st.booleans())
def test_rule_12_up_to_a_crash_the_journal_is_that_of_a_run_without_one(
    program: list[Any], crash: int, arrives: bool
) -> None:
    program = load_payload(dump_payload(program))
    calm = in_virtual_time(carried_out(interpreted, program, crashes={}))
    stormy = in_virtual_time(carried_out(interpreted, program, crashes={crash: arrives}))

    recorded_before = [entry for entry in stormy.journal() if entry.epoch < (stormy.crashed_in_epoch or 1_000)]
    assert [essence(entry) for entry in recorded_before] == [
        essence(entry) for entry in calm.journal()[: len(recorded_before)]
    ]
