"""Code that changes while runs are under way: what is safe goes on, what is not fails before it does anything."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiki.engine.events import RetryRequested
from aiki.engine.journal import EntryKind
from aiki.engine.retry import fixed
from aiki.engine.status import RunStatus
from aiki.errors import TaskFailedError
from aiki.sdk.registry import Registry
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow
from tests.worker.world import World, virtual

CALLS: list[str] = []
FAILING: set[str] = set()

Code = Callable[[Run], Awaitable[Any]]


@task
async def do(name: str, seconds: float = 0.0) -> str:
    CALLS.append(name)
    await asyncio.sleep(seconds)
    if name in FAILING:
        raise ValueError(f"{name} fails")
    return name


@task
async def other(name: str) -> str:
    CALLS.append(f"other {name}")
    return name


def code(function: Code) -> Workflow[[], Any]:
    async def flow(run: Run) -> Any:
        return await function(run)

    return workflow(name="flow")(flow)


async def deployed_after(before: Code, after: Code, *, calls: list[str]) -> World:
    """Execute *before* until *calls* were made and the run waits, then kill its worker and deploy *after*."""
    CALLS.clear()
    FAILING.clear()
    world = World(code(before))
    world.start(code(before))
    await world.until(lambda: calls == CALLS and (world.runs["run"].status.is_suspended or "last" in CALLS[-1]))
    world.registry = Registry(code(after))
    if world.runs["run"].status is RunStatus.RUNNING:
        world.kill()
    CALLS.clear()
    return world


async def a_b_then_an_hour(run: Run) -> Any:
    a = await do.run(run, "a")
    b = await do.run(run, "b")
    await sleep_like_before(run, 3600)
    return [a, b, await do.run(run, "c")]


async def a_b_then_crash(run: Run) -> Any:
    a = await do.run(run, "a")
    b = await do.run(run, "b")
    return [a, b, await do.run(run, "last", 1e6)]


class TestSafeChanges:
    @virtual
    async def test_reordering_tasks(self) -> None:
        async def b_a(run: Run) -> Any:
            b = await do.run(run, "b")
            a = await do.run(run, "a")
            await sleep_like_before(run, 3600)
            return [a, b, await do.run(run, "c")]

        world = await deployed_after(a_b_then_an_hour, b_a, calls=["a", "b"])

        assert (await world.end_of()).status is RunStatus.COMPLETED
        assert world.result() == ["a", "b", "c"]
        assert CALLS == ["c"]

    @virtual
    async def test_removing_a_task(self) -> None:
        async def only_b(run: Run) -> Any:
            b = await do.run(run, "b")
            await sleep_like_before(run, 3600)
            return [b, await do.run(run, "c")]

        world = await deployed_after(a_b_then_an_hour, only_b, calls=["a", "b"])

        await world.end_of()
        assert world.result() == ["b", "c"]
        assert CALLS == ["c"]

    @virtual
    async def test_removing_the_last_task_before_a_wait(self) -> None:
        async def only_a(run: Run) -> Any:
            a = await do.run(run, "a")
            await sleep_like_before(run, 3600)
            return [a, await do.run(run, "c")]

        world = await deployed_after(a_b_then_an_hour, only_a, calls=["a", "b"])

        await world.end_of()
        assert world.result() == ["a", "c"]

    @virtual
    async def test_appending_a_task(self) -> None:
        async def more(run: Run) -> Any:
            return [await a_b_then_an_hour(run), await do.run(run, "d")]

        world = await deployed_after(a_b_then_an_hour, more, calls=["a", "b"])

        await world.end_of()
        assert world.result() == [["a", "b", "c"], "d"]
        assert CALLS == ["c", "d"]

    @virtual
    async def test_making_tasks_parallel(self) -> None:
        async def together(run: Run) -> Any:
            found = await asyncio.gather(do.run(run, "b"), do.run(run, "a"))
            await sleep_like_before(run, 3600)
            return [*found, await do.run(run, "c")]

        world = await deployed_after(a_b_then_an_hour, together, calls=["a", "b"])

        await world.end_of()
        assert world.result() == ["b", "a", "c"]
        assert CALLS == ["c"]

    @virtual
    async def test_rule_7_a_longer_sleep_keeps_the_deadline_that_was_recorded(self) -> None:
        async def for_a_year(run: Run) -> Any:
            a = await do.run(run, "a")
            b = await do.run(run, "b")
            await sleep_like_before(run, 365 * 86_400)
            return [a, b, run.now().isoformat()]

        async def for_an_hour(run: Run) -> Any:
            a = await do.run(run, "a")
            b = await do.run(run, "b")
            await sleep_like_before(run, 3600)
            return [a, b, run.now().isoformat()]

        world = await deployed_after(for_an_hour, for_a_year, calls=["a", "b"])

        await world.end_of()
        assert world.result()[2] == "2026-01-01T01:00:00+00:00"

    @virtual
    async def test_rule_7_a_shorter_sleep_keeps_the_deadline_that_was_recorded(self) -> None:
        async def long(run: Run) -> Any:
            await sleep_like_before(run, 3600)
            return run.now().isoformat()

        async def short(run: Run) -> Any:
            await sleep_like_before(run, 1)
            return run.now().isoformat()

        world = World(code(long))
        world.start(code(long))
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.registry = Registry(code(short))

        await world.end_of()
        assert world.result() == "2026-01-01T01:00:00+00:00"


async def sleep_like_before(run: Run, seconds: float) -> None:
    await run.sleep(seconds)


class TestUnsafeChanges:
    async def assert_refused(self, before: Code, after: Code, calls: list[str], recorded: str, asked: str) -> None:
        world = await deployed_after(before, after, calls=calls)

        run = await world.end_of()

        assert run.status is RunStatus.FAILED
        assert run.failure is not None
        assert run.failure.type == "aiki.errors.NonDeterminismError"
        said, _, rest = run.failure.message.partition("asked for, and not recorded:")
        assert recorded in said
        assert asked in rest
        assert "test_changed_code.py:" in said
        assert not CALLS, "something new was executed"

    @virtual
    async def test_inserting_a_task_before_recorded_ones(self) -> None:
        async def inserted(run: Run) -> Any:
            a = await do.run(run, "a")
            x = await do.run(run, "x")
            return [a, x, await do.run(run, "b")]

        await self.assert_refused(a_b_then_crash, inserted, ["a", "b", "last"], "task:do:", "task:do:")

    @virtual
    async def test_inserting_a_task_before_recorded_ones_of_a_suspended_run(self) -> None:
        async def inserted(run: Run) -> Any:
            x = await do.run(run, "x")
            return [x, await a_b_then_an_hour(run)]

        await self.assert_refused(a_b_then_an_hour, inserted, ["a", "b"], "task:do:", "task:do:")

    @virtual
    async def test_renaming_a_recorded_task(self) -> None:
        async def renamed(run: Run) -> Any:
            a = await do.run(run, "a")
            return [a, await other.run(run, "b")]

        await self.assert_refused(a_b_then_crash, renamed, ["a", "b", "last"], "task:do:", "task:other:")

    @virtual
    async def test_changing_the_input_of_a_recorded_task(self) -> None:
        async def changed(run: Run) -> Any:
            a = await do.run(run, "a")
            return [a, await do.run(run, "B")]

        await self.assert_refused(a_b_then_crash, changed, ["a", "b", "last"], "#2 task_completed", "in ")

    @virtual
    async def test_inserting_a_sleep_before_recorded_tasks(self) -> None:
        async def sleepy(run: Run) -> Any:
            a = await do.run(run, "a")
            await run.sleep(10)
            return [a, await do.run(run, "b")]

        await self.assert_refused(a_b_then_crash, sleepy, ["a", "b", "last"], "task:do:", "timer:")


class TestNoFalseAlarms:
    @virtual
    async def test_a_slow_child_of_gather(self) -> None:
        async def both(run: Run) -> Any:
            return await asyncio.gather(slow_then_last(run), quick(run))

        async def slow_then_last(run: Run) -> str:
            return await do.run(run, "slow", 100)

        async def quick(run: Run) -> str:
            for n in range(5):
                await do.run(run, f"quick {n}", 1)
            return await do.run(run, "last", 1)

        CALLS.clear()
        world = World(code(both))
        world.start(code(both))
        await world.until(lambda: "last" in CALLS)
        world.kill()

        assert (await world.end_of()).status is RunStatus.COMPLETED
        assert world.result() == ["slow", "last"]

    @virtual
    async def test_the_same_task_with_the_same_input_three_times(self) -> None:
        async def thrice(run: Run) -> Any:
            found = [await do.run(run, "same") for _ in range(3)]
            await sleep_like_before(run, 3600)
            return [*found, *await asyncio.gather(*[do.run(run, "same") for _ in range(3)])]

        CALLS.clear()
        world = World(code(thrice))

        assert (await world.run(code(thrice))).status is RunStatus.COMPLETED
        assert world.result() == ["same"] * 6
        assert CALLS == ["same"] * 6

    @virtual
    async def test_tasks_that_were_cancelled_before_a_crash(self) -> None:
        async def racing(run: Run) -> Any:
            tasks = [asyncio.create_task(do.run(run, f"{n}", n)) for n in (1, 50, 60)]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in pending:
                each.cancel()
            first = [each.result() for each in done]
            return [*first, await do.run(run, "last", 100)]

        CALLS.clear()
        world = World(code(racing))
        world.start(code(racing))
        await world.until(lambda: "last" in CALLS)
        world.kill()

        assert (await world.end_of()).status is RunStatus.COMPLETED
        assert world.result() == ["1", "last"]
        assert CALLS.count("50") == 1

    @virtual
    async def test_a_retry_of_the_run_after_which_it_takes_another_path(self) -> None:
        async def fallback(run: Run) -> Any:
            try:
                return await do.run(run, "first")
            except TaskFailedError:
                await do.run(run, "clean up")
                raise

        CALLS.clear()
        FAILING.clear()
        FAILING.add("first")
        world = World(code(fallback))
        assert (await world.run(code(fallback))).status is RunStatus.FAILED

        FAILING.clear()
        world.say(RetryRequested)

        assert (await world.end_of()).status is RunStatus.COMPLETED
        assert world.result() == "first"
        assert CALLS == ["first", "clean up", "first"]
        assert [e.kind for e in world.journal()][:3] == [
            EntryKind.TASK_FAILED,
            EntryKind.TASK_COMPLETED,
            EntryKind.RETRIED,
        ]


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    FAILING.clear()


def test_a_retry_policy_may_change_at_any_time() -> None:
    """It is no part of what an operation is named by."""
    assert do.with_options(retry=fixed(5)).name == do.name
