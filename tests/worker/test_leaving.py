"""How a dispatch ends before the run does: cancelled, retried, paused, handed back, fenced off."""

import asyncio
from typing import Any

import pytest

from aiki.engine.commands import NotifyWorker, WorkerNotice
from aiki.engine.events import (
    CancelRequested,
    Event,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunFailed,
    RunSuspended,
)
from aiki.engine.retry import fixed
from aiki.engine.status import RunStatus
from aiki.sdk.context import TaskContext
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import workflow
from tests.worker.world import World, virtual

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    SEEN.clear()


@task
async def echo(value: str, seconds: float = 0.0) -> str:
    SEEN.append(value)
    await asyncio.sleep(seconds)
    return value


def kinds(world: World, run_id: str = "run") -> list[str]:
    return [entry.kind.value for entry in world.journal(run_id)]


def said(world: World, kind: type[Event]) -> list[Any]:
    return [event for event in world.events if isinstance(event, kind)]


class TestCancelling:
    @virtual
    async def test_a_run_that_is_cancelled_may_clean_up(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            try:
                await echo.run(run, "long", 1000)
            finally:
                await echo.run(run, "clean up")

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.say(CancelRequested)
        run = await world.end_of()

        assert run.status is RunStatus.CANCELLED
        assert SEEN == ["long", "clean up"]
        assert kinds(world) == ["cancel_requested", "task_completed"]

    @virtual
    async def test_a_sleeping_run_is_cancelled(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await run.sleep(1e6)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.say(CancelRequested)

        assert (await world.end_of()).status is RunStatus.CANCELLED

    @virtual
    async def test_a_workflow_may_refuse_to_be_cancelled(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            try:
                await run.sleep(1000)
            except asyncio.CancelledError:
                return "not me"
            return "slept"

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.say(CancelRequested)

        assert (await world.end_of()).status is RunStatus.COMPLETED
        assert world.result() == "not me"

    @virtual
    async def test_a_cancelled_run_that_is_retried_goes_on_as_if_it_had_not_been(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            first = await echo.run(run, "first")
            try:
                await run.sleep(1000)
            except asyncio.CancelledError:
                await echo.run(run, "clean up")
                raise
            return [first, await echo.run(run, "last")]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.say(CancelRequested)
        assert (await world.end_of()).status is RunStatus.CANCELLED

        world.say(RetryRequested)
        await world.end_of()

        assert world.result() == ["first", "last"]
        assert SEEN == ["first", "clean up", "last"]

    @virtual
    async def test_a_run_that_was_cancelled_twice_is_not_cancelled_again_when_it_is_retried(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            try:
                await run.sleep(1000)
            except asyncio.CancelledError:
                await run.sleep(1000)
            return "slept"

        world = World(flow)
        world.start(flow)
        for _ in range(2):
            await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
            world.say(CancelRequested)
            await world.until(lambda: kinds(world).count("cancel_requested") == len(said(world, CancelRequested)))
        assert (await world.end_of()).status is RunStatus.CANCELLED

        world.say(RetryRequested)
        run = await world.end_of()

        assert run.status is RunStatus.COMPLETED
        assert said(world, RunFailed)[0].operations == ("cancel#1", "cancel#2")

    @virtual
    async def test_a_failed_run_that_is_retried_repeats_what_failed(self) -> None:
        @task
        async def fails_at_first() -> str:
            SEEN.append("tried")
            if SEEN.count("tried") == 1:
                raise ValueError("not yet")
            return "done"

        @workflow
        async def flow(run: Run) -> list[str]:
            return [await echo.run(run, "once"), await fails_at_first.run(run)]

        world = World(flow)
        run = await world.run(flow)
        assert run.status is RunStatus.FAILED

        world.say(RetryRequested)
        await world.end_of()

        assert world.result() == ["once", "done"]
        assert SEEN == ["once", "tried", "tried"]


class TestGivingARunBack:
    @virtual
    async def test_tasks_that_nobody_waits_for_stop_when_the_run_ends(self) -> None:
        @task
        async def endless() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                SEEN.append(asyncio.get_running_loop().time())

        @workflow
        async def flow(run: Run) -> str:
            background = asyncio.create_task(endless.run(run))
            await run.sleep(10)
            return "done" if not background.done() else ""

        world = World(flow)
        world.confirms_after = 2.0
        await world.run(flow)

        assert world.result() == "done"
        (stopped_at,) = SEEN
        assert stopped_at == pytest.approx(10, abs=0.1)

    @virtual
    async def test_of_two_graces_that_are_given_at_once_the_second_counts(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await echo.run(run, "long", 100)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.is_paused_before_dispatch = True
        execution = world.executions["run"][2]

        execution.hand_back()
        world.grace = 0.0
        execution.hand_back()
        await world.until(lambda: world.held_back, seconds=1)

    @virtual
    async def test_a_paused_run_finishes_what_is_under_way_and_starts_nothing_new(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            return [await echo.run(run, "first", 5), await echo.run(run, "second")]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.say(PauseRequested)
        await world.until(lambda: world.runs["run"].status is RunStatus.PAUSED)
        assert SEEN == ["first"]
        assert kinds(world) == ["task_completed"]

        world.say(ResumeRequested)
        await world.end_of()
        assert world.result() == ["first", "second"]
        assert SEEN == ["first", "second"]

    @virtual
    async def test_a_run_that_is_handed_back_goes_on_elsewhere(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            return [await echo.run(run, "first", 5), await echo.run(run, "second")]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.executions["run"][2].hand_back()
        await world.end_of()

        (suspended,) = said(world, RunSuspended)
        assert suspended.ready
        assert world.result() == ["first", "second"]
        assert SEEN == ["first", "second"]
        assert world.dispatches == 2
        assert world.runs["run"].recoveries == 0

    @virtual
    async def test_what_is_not_done_within_the_grace_is_cut_off_and_does_not_count(self) -> None:
        @task(retry=fixed(max_attempts=1))
        async def long(ctx: TaskContext) -> int:
            SEEN.append(ctx.attempt)
            await asyncio.sleep(100)
            return ctx.attempt

        @workflow
        async def flow(run: Run) -> int:
            return await long.run(run)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.executions["run"][2].hand_back()
        await world.end_of()

        assert world.result() == 1
        assert SEEN == [1, 1]
        assert kinds(world) == ["task_completed"]

    @virtual
    @pytest.mark.parametrize("how", ["hand_back", "abandon"])
    async def test_a_task_that_will_not_stop_is_left_behind(self, how: str) -> None:
        @task
        async def stubborn() -> None:
            SEEN.append("started")
            for _ in range(100):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    SEEN.append("ignored")

        @workflow
        async def flow(run: Run) -> None:
            await stubborn.run(run)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        execution = world.executions["run"][2]
        getattr(execution, how)()
        await asyncio.sleep(30)

        assert "ignored" in SEEN
        assert world.executions.get("run", (None, None, None))[2] is not execution
        await world.close()

    @virtual
    async def test_a_run_that_is_fenced_off_stops_and_says_nothing_more(self) -> None:
        @task
        async def long() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                SEEN.append("stopped")

        @workflow
        async def flow(run: Run) -> None:
            await long.run(run)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: "run" in world.executions and world.runs["run"].status is RunStatus.RUNNING)
        await asyncio.sleep(1)
        command, _, execution = world.executions["run"]
        execution.notify(NotifyWorker(worker="worker-1", run_id="run", pair=command.pair, notice=WorkerNotice.FENCED))
        await world.until(lambda: SEEN)
        before = len(world.events)
        await asyncio.sleep(200)

        assert SEEN == ["stopped"]
        assert len(world.events) == before
        assert "run" not in world.executions
