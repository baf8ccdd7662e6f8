"""What a dispatch does and says, from its start to its end."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from aiki.engine.events import (
    Event,
    JournalAppended,
    RunCompleted,
    RunRequested,
    RunStarted,
    RunSuspended,
    SignalSent,
    WakeRequested,
)
from aiki.engine.journal import EntryKind, WaitKind
from aiki.engine.payload import Payload
from aiki.engine.status import RunStatus
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import workflow
from tests.worker.world import START, World, payload_of, virtual

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


class TestTheCourseOfARun:
    @virtual
    async def test_it_says_that_it_started_what_it_learnt_and_how_it_ended(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await echo.run(run, "a")

        world = World(flow)
        await world.run(flow)

        assert [type(event) for event in world.events] == [RunRequested, RunStarted, JournalAppended, RunCompleted]
        assert world.result() == "a"
        (entry,) = world.journal()
        assert (entry.kind, entry.attempt, entry.worker) == (EntryKind.TASK_COMPLETED, 1, "worker-1")
        assert payload_of(entry) == "a"
        assert entry.where is not None
        assert entry.where.startswith("test_execution.py:")

    @virtual
    async def test_parallel_tasks_run_at_the_same_time(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            return await asyncio.gather(*[echo.run(run, f"{n}", 10) for n in range(20)])

        world = World(flow)
        run = await world.run(flow)

        assert world.result() == [f"{n}" for n in range(20)]
        assert run.finished_at is not None
        assert (run.finished_at - START).total_seconds() == pytest.approx(10, abs=1)

    @virtual
    async def test_an_exception_of_the_workflow_fails_the_run(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            try:
                int("x")
            except ValueError as error:
                raise LookupError("nothing found") from error

        world = World(flow)
        run = await world.run(flow)

        assert run.status is RunStatus.FAILED
        assert run.failure is not None
        assert (run.failure.type, run.failure.message) == ("LookupError", "nothing found")
        assert run.failure.traceback is not None
        assert "nothing found" in run.failure.traceback
        assert run.failure.cause is not None
        assert run.failure.cause.type == "ValueError"

    @virtual
    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
    async def test_exceptions_that_end_other_things_end_the_run(self, error: type[BaseException]) -> None:
        @workflow
        async def flow(run: Run) -> None:
            raise error

        world = World(flow)

        assert (await world.run(flow)).status is RunStatus.FAILED

    @virtual
    async def test_a_result_that_does_not_fit_its_annotation_fails_the_run_and_says_why(self) -> None:
        @workflow
        async def flow(run: Run) -> int:
            return "many"  # type: ignore[return-value]

        run = await World(flow).run(flow)

        assert run.failure is not None
        assert run.failure.type == "aiki.errors.ResultNotSerialisableError"
        assert "workflow 'flow'" in run.failure.message

    @virtual
    async def test_a_result_that_is_too_large_fails_the_run_and_says_why(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return "x" * 2_000_000

        run = await World(flow).run(flow)

        assert run.failure is not None
        assert run.failure.type == "aiki.errors.PayloadTooLargeError"

    @virtual
    async def test_a_workflow_that_waits_for_nothing_that_can_happen_fails(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await asyncio.Event().wait()

        run = await World(flow).run(flow)

        assert run.failure is not None
        assert run.failure.type == "aiki.errors.WorkflowStuckError"

    @virtual
    async def test_what_it_says_of_itself_is_recorded_once(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            run.set_status({"done": 1})
            await run.sleep(3600)
            run.set_status("last words")

        world = World(flow)
        run = await world.run(flow)

        assert kinds(world) == ["status_set", "timer_fired", "status_set"]
        assert run.note == Payload('"last words"')

    @virtual
    async def test_a_long_journal_is_asked_for_in_pages(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            found = [await echo.run(run, f"{n}") for n in range(10)]
            await run.sleep(3600)
            return found

        world = World(flow, page=2)
        await world.run(flow)

        assert world.result() == [f"{n}" for n in range(10)]
        assert len(SEEN) == 10


class TestWaiting:
    @virtual
    async def test_rule_5_a_long_sleep_suspends_the_run(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            await asyncio.sleep(30 * 86_400)
            return run.now().isoformat()

        world = World(flow)
        run = await world.run(flow)

        (suspended,) = said(world, RunSuspended)
        assert [wait.kind for wait in suspended.waits] == [WaitKind.TIMER]
        assert suspended.wake_at == START + timedelta(days=30)
        assert world.dispatches == 2
        assert run.result == Payload('"2026-01-31T00:00:00+00:00"')

    @virtual
    async def test_rule_5_a_short_sleep_is_waited_for_in_place(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            for _ in range(3):
                await asyncio.sleep(0.2)

        world = World(flow)
        await world.run(flow)

        assert world.dispatches == 1
        assert kinds(world) == ["timer_fired"] * 3

    @virtual
    async def test_rule_5_nothing_is_suspended_while_a_task_is_under_way(self) -> None:
        @workflow
        async def flow(run: Run) -> Any:
            return await asyncio.gather(echo.run(run, "a", 100), run.sleep(50))

        world = World(flow)
        await world.run(flow)

        assert world.dispatches == 1
        assert kinds(world) == ["timer_fired", "task_completed"]

    @virtual
    async def test_a_run_that_is_woken_takes_its_nearest_timer_as_due(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            await run.sleep(86_400)
            return run.now().isoformat()

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        await asyncio.sleep(60)
        world.say(WakeRequested)
        await world.end_of()

        assert world.result().startswith("2026-01-01T00:01:")

    @virtual
    async def test_a_worker_whose_clock_is_behind_does_not_find_a_timer_early(self) -> None:
        """Rule 10: a wake carries the orchestrator's time, and the worker uses the later of that and its own."""

        @workflow
        async def flow(run: Run) -> None:
            await run.sleep(3600)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.SLEEPING)
        world.is_paused_before_dispatch = True
        await world.until(lambda: world.held_back)
        (command,) = world.held_back
        world.clock.behind = timedelta(minutes=5)
        world.take_held_back()
        await world.end_of()

        assert command.now == START + timedelta(hours=1)
        assert world.dispatches == 2

    @virtual
    async def test_a_signal_is_received_once_and_in_order(self) -> None:
        @workflow
        async def flow(run: Run) -> list[Any]:
            return [await run.wait_for_signal("go", int) for _ in range(3)]

        world = World(flow)
        world.start(flow)
        world.say(SignalSent, name="go", payload=Payload("1"))
        await world.until(lambda: world.runs["run"].status is RunStatus.AWAITING_SIGNAL)
        world.say(SignalSent, name="other", payload=Payload("99"))
        world.say(SignalSent, name="go", payload=Payload("2"))
        world.say(SignalSent, name="go", payload=Payload("3"))
        await world.end_of()

        assert world.result() == [1, 2, 3]
        assert kinds(world) == ["signal_received"] * 3

    @virtual
    async def test_a_signal_is_not_lost_to_somebody_who_stops_waiting_at_that_moment(self) -> None:
        @workflow
        async def flow(run: Run) -> list[Any]:
            try:
                async with asyncio.timeout(10):
                    return ["in time", await run.wait_for_signal("go")]
            except TimeoutError:
                return ["late", await run.wait_for_signal("go")]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: world.runs["run"].status is RunStatus.AWAITING_SIGNAL)
        # Both are there when the next worker takes the run: the deadline is over, and the signal has come.
        world.is_paused_before_dispatch = True
        await asyncio.sleep(20)
        world.say(SignalSent, name="go", payload=Payload('"here"'))
        world.take_held_back()
        await world.end_of()

        assert world.result()[1] == "here"

    @virtual
    async def test_stamps_never_go_back_when_a_clock_does(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            found = [await echo.run(run, "first", 10)]
            world.clock.behind = timedelta(minutes=5)
            return [*found, await echo.run(run, "second", 10)]

        world = World(flow)
        await world.run(flow)

        first, second = world.journal()
        assert first.at == second.at == START + timedelta(seconds=10)

    @virtual
    async def test_rule_13_an_outage_does_not_make_deadlines_overdue(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            first = await echo.run(run, "first")
            async with asyncio.timeout(30):
                second = await echo.run(run, "second", 10)
            return [first, second, f"{run.now():%H:%M}"]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: "second" in SEEN)
        world.is_paused_before_dispatch = True
        world.kill()
        await asyncio.sleep(7200)
        world.take_held_back()
        await world.end_of()

        assert world.result() == ["first", "second", "02:00"]
        assert kinds(world) == ["task_completed", "clock", "task_completed"]

    @virtual
    async def test_rule_13_a_run_that_is_handed_back_at_once_keeps_no_deadline_of_the_past(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            first = await echo.run(run, "first")
            async with asyncio.timeout(30):
                return [first, await echo.run(run, "second", 10)]

        world = World(flow)
        world.start(flow)
        await world.until(lambda: "second" in SEEN)
        world.is_paused_before_dispatch = True
        world.kill()
        await asyncio.sleep(7200)
        world.take_held_back()
        await asyncio.sleep(0)
        world.executions["run"][2].hand_back()
        await world.end_of()

        assert world.result() == ["first", "second"]
        assert world.dispatches == 3

    @virtual
    async def test_rule_13_no_clock_entry_where_another_entry_moves_time(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            await run.sleep(3600)
            return await echo.run(run, "a")

        world = World(flow)
        await world.run(flow)

        assert kinds(world) == ["timer_fired", "task_completed"]


class TestRule12And13:
    @virtual
    async def test_rule_13_nothing_starts_before_what_led_to_it_is_confirmed(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            await echo.run(run, "first")
            return await echo.run(run, "second")

        world = World(flow)
        world.confirms_after = 5.0
        world.start(flow)
        await world.until(lambda: "first" in SEEN)
        await asyncio.sleep(4)
        assert SEEN == ["first"]

        await world.end_of()
        assert SEEN == ["first", "second"]

    @virtual
    async def test_rule_13_nothing_starts_early_because_something_else_happens_meanwhile(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            async def two() -> None:
                await echo.run(run, "first", 1)
                await echo.run(run, "second")

            await asyncio.gather(two(), echo.run(run, "beside", 2))

        world = World(flow)
        world.confirms_after = 5.0
        world.start(flow)
        await world.until(lambda: "first" in SEEN)
        await asyncio.sleep(5)
        assert "second" not in SEEN

        await world.end_of()
        assert SEEN[-1] == "second"

    @virtual
    async def test_what_ends_a_run_and_its_end_go_out_together(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await echo.run(run, "a") + await echo.run(run, "b")

        world = World(flow)
        world.confirms_after = 5.0
        await world.run(flow)

        last, end = world.events[-2:]
        assert isinstance(last, JournalAppended)
        assert isinstance(end, RunCompleted)
        assert last.at == end.at
        assert end.last_seq == last.entries[-1].seq

    @virtual
    async def test_rule_13_what_is_cancelled_goes_on_until_the_reason_is_confirmed(self) -> None:
        ended_at: list[float] = []

        @task
        async def endless() -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                ended_at.append(asyncio.get_running_loop().time())

        @workflow
        async def flow(run: Run) -> str:
            try:
                async with asyncio.timeout(10):
                    await endless.run(run)
            except TimeoutError:
                return "gave up"
            return ""

        world = World(flow)
        world.confirms_after = 5.0
        await world.run(flow)

        assert world.result() == "gave up"
        assert ended_at == [pytest.approx(15, abs=0.1)]

    @virtual
    async def test_rule_12_logical_time_never_passes_the_stamp_of_what_is_not_confirmed(self) -> None:
        times: list[Any] = []

        @workflow
        async def flow(run: Run) -> None:
            async def watch() -> None:
                for _ in range(3):
                    await run.sleep(0.1)
                    times.append(run.now())

            await asyncio.gather(watch(), echo.run(run, "a", 0.15))

        world = World(flow)
        world.confirms_after = 1.0
        await world.run(flow)

        stamps = [entry.at for entry in world.journal() if entry.kind is EntryKind.TIMER_FIRED]
        assert times == stamps

    @virtual
    async def test_rule_4_after_a_loss_nothing_starts_before_it_is_known_who_holds_the_run(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await echo.run(run, "a", 1)

        world = World(flow)
        world.start(flow)
        await world.until(lambda: SEEN)
        world.confirms_after = 5.0
        world.kill()
        await world.until(lambda: world.dispatches == 2)
        await asyncio.sleep(4)
        assert SEEN == ["a"]

        await world.end_of()
        assert SEEN == ["a", "a"]

    @virtual
    async def test_rule_4_code_that_kills_its_worker_at_once_is_counted(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            SEEN.append("dying")
            world.kill()
            await run.sleep(1)

        world = World(flow)
        world.arrives_after = 0.01
        run = await world.run(flow, recoveries_max=3)

        assert run.status is RunStatus.DEAD_LETTERED
        assert len(world.letters) == 1
        # Nobody knew yet that the first worker had it. Then come three recoveries, one as a suspect, and one alone.
        assert SEEN == ["dying"] * 6


def test_a_step_costs_the_same_however_many_came_before() -> None:
    """A bound that a growing cost per step would break by far, and a slow machine does not."""

    @workflow
    async def flow(run: Run, steps: int) -> int:
        for n in range(steps):
            await echo.run(run, f"{n}")
        return steps

    def seconds(steps: int) -> float:
        async def scenario() -> float:
            world = World(flow)
            started = time.process_time()
            world.start(flow, steps)
            while not world.runs["run"].status.is_final:  # noqa: ASYNC110 - the turns of the loop are what is timed
                await asyncio.sleep(0)
            return time.process_time() - started

        return min(asyncio.run(scenario()) for _ in range(3))

    few, many = seconds(200), seconds(2000)

    assert many / few < 25
