"""What is executed elsewhere: tasks of other queues, child runs, and what arrives."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from aiki.engine.events import (
    Event,
    RetryRequested,
    SignalSent,
    TaskScheduled,
)
from aiki.engine.journal import EntryKind, InboxItem, InboxKind
from aiki.engine.payload import Payload
from aiki.engine.retry import fixed
from aiki.engine.status import RunStatus
from aiki.errors import ChildFailedError
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


class TestElsewhere:
    @virtual
    async def test_a_task_of_another_queue_is_executed_there(self) -> None:
        @task(queue="gpu", retry=fixed(max_attempts=3, delay=1))
        async def render(ctx: TaskContext, frame: int) -> str:
            SEEN.append(ctx.attempt)
            await asyncio.sleep(100)
            if ctx.attempt == 1:
                raise ConnectionError("no card")
            return f"frame {frame}"

        @workflow
        async def flow(run: Run) -> str:
            return await render.run(run, 7)

        world = World(flow, render)
        await world.run(flow)

        assert world.result() == "frame 7"
        assert SEEN == [1, 2]
        assert kinds(world) == ["task_scheduled", "attempt_failed", "task_scheduled", "task_completed"]
        first, second = said(world, TaskScheduled)
        assert first.task_id != second.task_id
        assert first.idempotency_key == second.idempotency_key
        assert world.journal()[1].source == first.task_id

    @virtual
    async def test_a_policy_judges_what_happened_elsewhere_by_its_class(self) -> None:
        @task(
            queue="gpu", retry=fixed(max_attempts=3, delay=1, retry_on=ConnectionError, give_up_on=ConnectionResetError)
        )
        async def render(ctx: TaskContext) -> None:
            SEEN.append(ctx.attempt)
            raise ConnectionResetError if ctx.attempt == 2 else ConnectionRefusedError

        @workflow
        async def flow(run: Run) -> None:
            await render.run(run)

        await World(flow, render).run(flow)

        assert SEEN == [1, 2]

    @virtual
    async def test_a_lost_holder_announces_what_was_sent_away_once_more(self) -> None:
        """Rule 18: what runs elsewhere is matched by its own id, never by the parent's epoch."""

        @task(queue="gpu")
        async def render() -> str:
            SEEN.append("render")
            await asyncio.sleep(1000)
            return "done"

        @workflow
        async def flow(run: Run) -> Any:
            return await asyncio.gather(render.run(run), echo.run(run, "local", 100))

        world = World(flow, render)
        world.start(flow)
        await world.until(lambda: len(SEEN) == 2)
        world.kill()
        await world.end_of()

        assert world.result() == ["done", "local"]
        again = said(world, TaskScheduled)
        assert [event.entry is None for event in again] == [False, True]
        assert len({event.task_id for event in again}) == 1

    @virtual
    async def test_a_child_run_gives_its_result_to_its_parent(self) -> None:
        @workflow
        async def child(run: Run, n: int) -> int:
            await run.sleep(3600)
            return n * 2

        @workflow
        async def parent(run: Run) -> list[int]:
            return await asyncio.gather(*[child.run(run, n) for n in (1, 2)])

        world = World(parent, child)
        await world.run(parent)

        assert world.result() == [2, 4]
        assert len(world.runs) == 3
        assert sorted(kinds(world)) == ["child_completed"] * 2 + ["child_started"] * 2

    @virtual
    async def test_a_child_that_fails_raises_in_its_parent(self) -> None:
        @workflow
        async def child(run: Run) -> None:
            raise ValueError("spoilt")

        @workflow
        async def parent(run: Run) -> str:
            try:
                await child.run(run)
            except ChildFailedError as error:
                return f"{error.workflow}: {error.failure.message}"
            return ""

        world = World(parent, child)
        await world.run(parent)

        assert world.result() == "child: spoilt"

    @virtual
    async def test_cancelling_what_awaits_a_child_cancels_the_child(self) -> None:
        @workflow
        async def child(run: Run) -> None:
            await run.sleep(1e6)

        @workflow
        async def parent(run: Run) -> str:
            try:
                async with asyncio.timeout(100):
                    await child.run(run)
            except TimeoutError:
                return "gave up"
            return ""

        world = World(parent, child)
        await world.run(parent)
        (child_id,) = [run_id for run_id in world.runs if run_id != "run"]

        assert world.result() == "gave up"
        assert (await world.end_of(child_id)).status is RunStatus.CANCELLED

    @virtual
    async def test_a_child_that_is_on_record_is_asked_for_though_its_parent_ends_with_that_record(self) -> None:
        @workflow
        async def child(run: Run) -> None:
            SEEN.append("child")

        @workflow
        async def parent(run: Run) -> None:
            async def two() -> None:
                await echo.run(run, "first", 1)
                await child.run(run)

            run_beside = asyncio.create_task(two())
            await echo.run(run, "beside", 2)
            assert not run_beside.done()

        world = World(parent, child)
        world.confirms_after = 5.0
        await world.run(parent)
        (child_id,) = [entry.source for entry in world.journal() if entry.kind is EntryKind.CHILD_STARTED]
        assert child_id is not None

        assert (await world.end_of(child_id)).status is RunStatus.COMPLETED
        assert SEEN[-1] == "child"

    @virtual
    async def test_a_retried_parent_starts_a_new_child(self) -> None:
        @workflow
        async def child(run: Run) -> str:
            if not SEEN:
                SEEN.append("failed")
                raise ValueError("spoilt")
            return "fresh"

        @workflow
        async def parent(run: Run) -> str:
            return await child.run(run)

        world = World(parent, child)
        assert (await world.run(parent)).status is RunStatus.FAILED
        world.say(RetryRequested)
        await world.end_of()

        assert world.result() == "fresh"
        assert len(world.runs) == 3


class TestWhatBelongsToOthers:
    @virtual
    async def test_a_dispatch_whose_publishes_fail_ends_with_their_error(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await echo.run(run, "a")

        world = World(flow, crashes={2: False}.items())
        world.start(flow)
        await world.end_of()

        assert world.result() == "a"
        assert world.dispatches == 2

    @virtual
    async def test_items_that_the_journal_names_are_dead(self) -> None:
        """Rule 17: an inbox item is live as long as no journal entry names its id."""

        @workflow
        async def flow(run: Run) -> list[Any]:
            first = await run.wait_for_signal("go")
            await run.sleep(3600)
            return [first, await run.wait_for_signal("go")]

        world = World(flow)
        world.start(flow)
        world.say(SignalSent, name="go", payload=Payload("1"))
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.is_paused_before_dispatch = True
        await world.until(lambda: world.held_back)

        # The order was written before the engine heard that the item is consumed.
        (command,) = world.held_back
        consumed = world.journal()[0].source
        assert consumed is not None
        dead = InboxItem(
            id=consumed, kind=InboxKind.SIGNAL, name="go", at=command.now, epoch=1, payload=Payload('"again"')
        )
        world.held_back = [replace(command, inbox=(dead,))]
        world.take_held_back()
        await world.until(lambda: world.runs["run"].status is RunStatus.AWAITING_SIGNAL)
        world.say(SignalSent, name="go", payload=Payload("2"))
        await world.end_of()

        assert world.result() == [1, 2]
