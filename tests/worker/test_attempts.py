"""Attempts of tasks: tried again, limited, cancelled, and recorded once."""

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import Any

import pytest

from aiki.engine.events import (
    Event,
    RunSuspended,
)
from aiki.engine.journal import EntryKind, WaitKind
from aiki.engine.retry import RetryAfter, exponential, fixed
from aiki.errors import TaskFailedError
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


@task(retry=exponential(max_attempts=4, base_delay=1.0))
async def flaky(ctx: TaskContext, succeeds_at: int) -> int:
    SEEN.append((ctx.attempt, ctx.idempotency_key))
    if ctx.attempt < succeeds_at:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


def kinds(world: World, run_id: str = "run") -> list[str]:
    return [entry.kind.value for entry in world.journal(run_id)]


def said(world: World, kind: type[Event]) -> list[Any]:
    return [event for event in world.events if isinstance(event, kind)]


class TestAttempts:
    @virtual
    async def test_a_failing_task_is_tried_again_as_its_policy_says(self) -> None:
        @workflow
        async def flow(run: Run) -> int:
            return await flaky.run(run, 4)

        world = World(flow)
        await world.run(flow)

        assert world.result() == 4
        failed = [entry for entry in world.journal() if entry.kind is EntryKind.ATTEMPT_FAILED]
        delays = [entry.due_at - entry.at for entry in failed if entry.due_at is not None]
        assert [delay / timedelta(milliseconds=1) for delay in delays] == [1000, 1995, 3981]
        assert [entry.failure.message for entry in failed if entry.failure] == ["attempt 1", "attempt 2", "attempt 3"]
        assert [attempt for attempt, _ in SEEN] == [1, 2, 3, 4]
        assert len({key for _, key in SEEN}) == 1, "the idempotency key is the same on each attempt"
        waits = [wait for event in said(world, RunSuspended) for wait in event.waits]
        assert [(wait.kind, wait.delay_ms) for wait in waits] == [(WaitKind.RETRY, n) for n in (1000, 1995, 3981)]

    @virtual
    async def test_the_last_failed_attempt_is_raised_in_the_workflow(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            try:
                await flaky.run(run, 99)
            except TaskFailedError as error:
                return f"{error.task} {error.attempts} {error.failure.message} {error.was(ConnectionError)}"
            return ""

        world = World(flow)
        await world.run(flow)

        assert world.result() == "flaky 4 attempt 4 True"

    @virtual
    async def test_a_near_retry_is_waited_for_in_place(self) -> None:
        @task(retry=fixed(max_attempts=3, delay=0.2))
        async def nearly(ctx: TaskContext) -> int:
            if ctx.attempt < 3:
                raise ValueError
            return ctx.attempt

        @workflow
        async def flow(run: Run) -> int:
            return await nearly.run(run)

        world = World(flow)
        await world.run(flow)

        assert world.result() == 3
        assert world.dispatches == 1

    @virtual
    async def test_a_task_may_say_when_it_wants_to_be_tried_again(self) -> None:
        @task(retry=fixed(max_attempts=2, delay=1))
        async def busy(ctx: TaskContext) -> str:
            if ctx.attempt == 1:
                raise RetryAfter(100)
            return "done"

        @workflow
        async def flow(run: Run) -> str:
            return await busy.run(run)

        world = World(flow)
        await world.run(flow)

        assert world.result() == "done"
        (failed, _) = world.journal()
        assert failed.due_at is not None
        assert failed.due_at - failed.at == timedelta(seconds=100)

    @virtual
    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopAsyncIteration])
    @pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
    async def test_whatever_a_task_raises_is_a_failed_attempt(self, error: type[BaseException], plain: bool) -> None:
        @task
        async def deadly() -> None:
            raise error

        @task(name="deadly")
        def deadly_in_a_thread() -> None:
            raise error

        @workflow
        async def flow(run: Run) -> str:
            try:
                await (deadly_in_a_thread if plain else deadly).run(run)
            except TaskFailedError as failed:
                return failed.failure.type
            return "nothing"

        world = World(flow)
        await world.run(flow)

        assert error.__name__ in world.result()

    @virtual
    async def test_a_task_that_takes_too_long_is_cancelled_and_fails(self) -> None:
        @task(timeout=5)
        async def slow() -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                SEEN.append(asyncio.get_running_loop().time())
                raise

        @workflow
        async def flow(run: Run) -> str:
            try:
                await slow.run(run)
            except TaskFailedError as error:
                return error.failure.type
            return "in time"

        world = World(flow)
        await world.run(flow)

        assert world.result() == "aiki.errors.TaskTimeoutError"
        assert [pytest.approx(5, abs=0.1)] == SEEN

    @virtual
    async def test_heartbeats_keep_a_task_alive_and_their_absence_ends_it(self) -> None:
        @task(heartbeat_timeout=5)
        async def beating(ctx: TaskContext, beats: int) -> str:
            for _ in range(beats):
                await asyncio.sleep(4)
                ctx.heartbeat({"beat": 1})
            await asyncio.sleep(4 if beats else 50)
            return "done"

        @workflow
        async def flow(run: Run) -> list[str]:
            found = [await beating.run(run, 3)]
            try:
                await beating.run(run, 0)
            except TaskFailedError as error:
                found.append(error.failure.type)
            return found

        world = World(flow)
        await world.run(flow)

        assert world.result() == ["done", "aiki.errors.TaskHeartbeatTimeoutError"]

    @virtual
    async def test_rule_14_a_task_that_the_workflow_cancels_is_cancelled_and_leaves_no_entry(self) -> None:
        """Rule 14: the outcome of a cancelled operation gets no entry."""

        @task
        async def endless() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                SEEN.append("cancelled")

        @workflow
        async def flow(run: Run) -> str:
            try:
                async with asyncio.timeout(10):
                    await endless.run(run)
            except TimeoutError:
                return await echo.run(run, "went on")
            return "done"

        world = World(flow)
        await world.run(flow)

        assert world.result() == "went on"
        assert SEEN == ["cancelled", "went on"]
        assert kinds(world) == ["timer_fired", "task_completed"]

    @virtual
    async def test_a_result_that_cannot_be_recorded_is_a_failed_attempt(self) -> None:
        @task
        async def odd() -> int:
            return object()  # type: ignore[return-value]

        @workflow
        async def flow(run: Run) -> None:
            await odd.run(run)

        run = await World(flow).run(flow)

        assert run.failure is not None
        assert run.failure.cause is not None
        assert run.failure.cause.type == "aiki.errors.ResultNotSerialisableError"
        assert "task 'odd'" in run.failure.cause.message

    @virtual
    async def test_a_task_runs_in_a_context_of_its_own(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        @task
        async def look() -> str:
            found = variable.get()
            variable.set("set by a task")
            return found

        @task
        async def call_another() -> str:
            return await look()  # Inside a task, another task is a plain function.

        @workflow
        async def flow(run: Run) -> list[str]:
            variable.set("set by the workflow")
            return [await look.run(run), await look.run(run), await call_another.run(run), variable.get()]

        world = World(flow)
        await world.run(flow)

        assert world.result() == ["unset", "unset", "unset", "set by the workflow"]

    def test_plain_functions_run_in_threads_and_hear_that_they_are_cancelled(self) -> None:
        stopped = threading.Event()

        @task
        def where(ctx: TaskContext) -> str:
            return threading.current_thread().name

        @task
        def blocking(ctx: TaskContext) -> None:
            if ctx.wait_cancelled(timeout=20):
                stopped.set()

        @workflow
        async def flow(run: Run) -> str:
            try:
                async with asyncio.timeout(0.05):
                    await blocking.run(run)
            except TimeoutError:
                pass
            return await where.run(run)

        async def scenario() -> None:
            world = World(flow)
            world.start(flow)
            async with asyncio.timeout(10):
                while not world.runs["run"].status.is_final:  # noqa: ASYNC110 - a thread has nothing to set
                    await asyncio.sleep(0.001)
            assert world.result() != threading.main_thread().name

        asyncio.run(scenario())
        assert stopped.wait(10)
