"""Replay by its rules (design, section 5), each named where it is tested."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import EntryKind, Failure, JournalEntry, Wait, WaitKind
from aiki.engine.payload import Payload, digest, dump_payload, load_payload
from aiki.engine.state import Pair
from aiki.errors import DirectCallError, TaskFailedError, WorkflowIOError
from aiki.sdk.run import Run
from aiki.sdk.task import Task, task
from aiki.sdk.workflow import Workflow, workflow
from aiki.worker.history import History
from aiki.worker.operations import SignalOperation, TaskOperation, TimerOperation
from aiki.worker.replay import Replay

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)


@task
async def fetch(name: str) -> str:
    raise AssertionError("replay executes nothing")


def asked(definition: Task[..., Any], *args: Any, n: int = 1) -> str:
    return f"task:{definition.name}:{digest(definition.signature.dump(args, {}))}#{n}"


class Recording:
    """A journal in the making."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []

    def add(self, kind: EntryKind, operation: str | None = None, *, at: float | None = None, **facts: Any) -> None:
        seq = len(self.entries) + 1
        moment = BEGAN + timedelta(seconds=seq if at is None else at)
        self.entries.append(JournalEntry(seq=seq, epoch=1, at=moment, kind=kind, operation=operation, **facts))

    def done(self, name: str, result: Any = None, *, n: int = 1, at: float | None = None) -> "Recording":
        payload = dump_payload(name if result is None else result)
        self.add(EntryKind.TASK_COMPLETED, asked(fetch, name, n=n), at=at, payload=payload, attempt=1)
        return self

    def failed(self, name: str, message: str = "no") -> "Recording":
        failure = Failure(type="ValueError", message=message)
        self.add(EntryKind.TASK_FAILED, asked(fetch, name), failure=failure, attempt=3)
        return self

    def fired(self, timer: str, *, at: float | None = None) -> "Recording":
        self.add(EntryKind.TIMER_FIRED, f"timer:{timer}", at=at)
        return self


def replayed(flow: Workflow[..., Any], recording: Recording | None = None, *, waits: tuple[Wait, ...] = ()) -> Replay:
    entries = tuple(recording.entries) if recording else ()
    command = ExecuteRun(
        queue=flow.queue,
        run_id="run-1",
        incarnation="incarnation-1",
        pair=Pair(2, "dispatch"),
        workflow=flow.name,
        version=flow.version,
        input=Payload("{}"),
        now=BEGAN,
        created_at=BEGAN,
        base_seq=len(entries),
        journal=entries,
        waits=waits,
    )
    replay = Replay(command, flow, History(entries), began_at=BEGAN)
    replay.drive(go_on=lambda: True)
    return replay


def result_of(replay: Replay) -> Any:
    end = replay.end
    assert end is not None
    if end.error is not None:
        raise end.error
    assert end.result is not None
    replay.discard()
    return load_payload(end.result)


class TestRule1:
    def test_equal_addresses_form_a_queue(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            return [await fetch.run(run, "same") for _ in range(3)]

        recording = Recording().done("same", "first").done("same", "second", n=2).done("same", "third", n=3)

        assert result_of(replayed(flow, recording)) == ["first", "second", "third"]

    def test_rule_14_the_number_is_given_when_it_is_asked_for_and_kept_by_cancelled_ones(self) -> None:
        """Rule 14: ``n`` is fixed when an operation is asked for."""

        @workflow
        async def flow(run: Run) -> str:
            first = asyncio.create_task(fetch.run(run, "same"))
            await asyncio.sleep(0)
            first.cancel()
            return await fetch.run(run, "same")

        assert result_of(replayed(flow, Recording().done("same", "second", n=2))) == "second"

    def test_arguments_have_one_address_however_they_are_passed(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await fetch.run(run, name="a")

        assert result_of(replayed(flow, Recording().done("a"))) == "a"


class TestRule2:
    @pytest.mark.parametrize("order", ["abc", "cab", "bca"])
    def test_what_happened_in_parallel_branches_happens_again_in_the_same_order(self, order: str) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            seen: list[str] = []

            async def branch(name: str) -> None:
                seen.append(await fetch.run(run, name))

            await asyncio.gather(*[branch(name) for name in "abc"])
            return seen

        recording = Recording()
        for name in order:
            recording.done(name)

        assert result_of(replayed(flow, recording)) == list(order)

    def test_each_entry_is_resolved_to_quiescence_before_the_next(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            seen: list[str] = []

            async def branch(name: str) -> None:
                await fetch.run(run, name)
                for n in range(3):
                    seen.append(f"{name}{n}")
                    await asyncio.sleep(0)

            await asyncio.gather(branch("a"), branch("b"))
            return seen

        assert result_of(replayed(flow, Recording().done("b").done("a"))) == ["b0", "b1", "b2", "a0", "a1", "a2"]

    def test_a_timer_that_fired_before_a_result_wins_again(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            try:
                async with asyncio.timeout(10):
                    return await fetch.run(run, "slow")
            except TimeoutError:
                return "too late"

        timer = "flow#1"
        late = Recording().fired(timer, at=10).done("slow", at=10)
        just_in_time = Recording().done("slow", at=10).fired(timer, at=10)

        assert result_of(replayed(flow, late)) == "too late"
        assert result_of(replayed(flow, just_in_time)) == "slow"

    def test_a_failure_is_raised_where_it_is_awaited(self) -> None:
        @workflow
        async def flow(run: Run) -> list[Any]:
            try:
                await fetch.run(run, "bad")
            except TaskFailedError as error:
                return [error.task, error.attempts, error.failure.message, error.was(ValueError), error.was(KeyError)]
            return []

        assert result_of(replayed(flow, Recording().failed("bad"))) == ["fetch", 3, "no", True, False]


class TestRule3:
    def test_what_has_no_entry_is_new_and_waits_to_be_started(self) -> None:
        @workflow
        async def flow(run: Run) -> tuple[str, str, str]:
            return await asyncio.gather(fetch.run(run, "a"), fetch.run(run, "b"), fetch.run(run, "c"))

        replay = replayed(flow, Recording().done("b"))

        assert [operation.id for operation in replay.new] == [asked(fetch, "a"), asked(fetch, "c")]
        assert replay.check() is None
        replay.discard()

    def test_left_over_timers_and_clock_entries_do_not_count(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await fetch.run(run, "new")

        recording = Recording().fired("somewhere#1")
        recording.add(EntryKind.CLOCK)
        recording.add(EntryKind.STATUS_SET, "status#1", payload=Payload("1"))

        replay = replayed(flow, recording)
        assert replay.check() is None
        replay.discard()

    def test_the_error_names_both_sides_and_their_lines(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await fetch.run(run, "new")

        recording = Recording()
        recording.add(EntryKind.TASK_COMPLETED, asked(fetch, "old"), payload=Payload("1"), where="flow.py:7 in flow")

        replay = replayed(flow, recording)
        error = replay.check()
        assert error is not None
        assert error.recorded == (f"#1 task_completed {asked(fetch, 'old')} (flow.py:7 in flow)",)
        assert error.asked[0].startswith(f"{asked(fetch, 'new')} (test_replay.py:")
        assert "in TestRule3" in error.asked[0]
        assert "new version of the workflow" in str(error)
        replay.discard()


class TestRule4:
    def test_logical_time_moves_with_the_journal_only(self) -> None:
        @workflow
        async def flow(run: Run) -> list[str]:
            times = [run.now()]
            await fetch.run(run, "a")
            times.append(run.now())
            await asyncio.sleep(0)
            times.append(run.now())
            await run.sleep(100)
            times.append(run.now())
            return [f"{time:%H:%M:%S}" for time in times]

        timer = "flow#1"
        recording = Recording().done("a", at=7).fired(timer, at=108)

        assert result_of(replayed(flow, recording)) == ["12:00:00", "12:00:07", "12:00:07", "12:01:48"]

    def test_logical_time_never_goes_back(self) -> None:
        @workflow
        async def flow(run: Run) -> bool:
            await fetch.run(run, "a")
            before = run.now()
            await fetch.run(run, "b")
            return run.now() >= before

        assert result_of(replayed(flow, Recording().done("a", at=9).done("b", at=3))) is True

    def test_random_numbers_and_uuids_are_the_same_again(self) -> None:
        @workflow
        async def flow(run: Run) -> list[Any]:
            return [run.random.random(), str(run.uuid()), run.random.choice("abcdef"), str(run.uuid())]

        first, again = result_of(replayed(flow)), result_of(replayed(flow))

        assert first == again
        assert UUID(first[1]) != UUID(first[3])
        assert UUID(first[1]).version == 4

    def test_logging_is_silent_during_replay(self, caplog: pytest.LogCaptureFixture) -> None:
        @workflow
        async def flow(run: Run) -> None:
            run.logger.info("before")
            assert run.is_replaying
            await fetch.run(run, "a")
            run.logger.info("after", answer=42)
            await fetch.run(run, "b")

        with caplog.at_level(logging.INFO):
            replayed(flow, Recording().done("a")).discard()

        assert [record.getMessage().split()[0] for record in caplog.records] == ["after"]
        assert "run_id='run-1'" in caplog.text

    def test_logging_is_silent_up_to_where_the_run_was_suspended(self, caplog: pytest.LogCaptureFixture) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await fetch.run(run, "a")
            run.logger.info("going to wait")
            await run.wait_for_signal("go")

        waits = (Wait(kind=WaitKind.SIGNAL, operation="signal:go#1", name="go"),)
        with caplog.at_level(logging.INFO):
            replayed(flow, Recording().done("a"), waits=waits).discard()

        assert not caplog.records


class TestRule6:
    @pytest.mark.parametrize("wait", ["task", "timer", "signal", "sleep"])
    def test_suspending_is_invisible(self, wait: str, caplog: pytest.LogCaptureFixture) -> None:
        noticed: list[str] = []
        waits: dict[str, Callable[[Run], Any]] = {
            "task": lambda run: fetch.run(run, "a"),
            "timer": lambda run: run.sleep(1),
            "signal": lambda run: run.wait_for_signal("go"),
            "sleep": lambda _: asyncio.sleep(1),
        }

        @workflow
        async def flow(run: Run) -> None:
            try:
                await waits[wait](run)
            except Exception:  # noqa: BLE001 - what a workflow may well do
                noticed.append("an exception")
            finally:
                run.logger.error("thrown away")
                run.set_status("thrown away")
                await fetch.run(run, "clean up")
                noticed.append("went on")

        with caplog.at_level(logging.DEBUG):
            replay = replayed(flow)
            before = list(replay.new)
            replay.discard()

        assert not noticed
        assert not caplog.records
        assert replay.new == before
        assert not replay.pending


async def nap(run: Run) -> None:
    await run.sleep(3)


class TestRule7:
    def test_a_recorded_deadline_stays(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await run.sleep(1)

        name = "timer:flow#1"
        due = BEGAN + timedelta(days=3)

        replay = replayed(flow, waits=(Wait(kind=WaitKind.TIMER, operation=name, due_at=due),))

        (timer,) = replay.pending.values()
        assert isinstance(timer, TimerOperation)
        assert timer.due == due
        assert not replay.new
        replay.discard()

    @pytest.mark.parametrize(
        ("delay", "due"),
        [
            (0.1, BEGAN + timedelta(seconds=0.1)),
            (0.0001, BEGAN + timedelta(milliseconds=1)),
            (30 * 86_400, BEGAN + timedelta(days=30)),
            (1e18, datetime(9999, 12, 31, tzinfo=UTC)),
        ],
    )
    def test_a_deadline_is_in_milliseconds_and_never_early(self, delay: float, due: datetime) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await asyncio.sleep(delay)

        replay = replayed(flow)

        assert [operation.due for operation in replay.pending.values()] == [due]
        replay.discard()

    def test_timers_are_named_by_the_function_that_asks(self) -> None:
        @workflow(name="purchase")
        async def flow(run: Run) -> None:
            async def pause() -> None:
                async with asyncio.timeout(50):
                    await run.sleep(1)

            await asyncio.gather(pause(), asyncio.sleep(2), asyncio.wait_for(asyncio.Event().wait(), 7), nap(run))

        replay = replayed(flow)

        assert list(replay.pending) == [
            "timer:purchase.<locals>.pause#1",
            "timer:purchase.<locals>.pause#2",
            "timer:sleep#1",
            "timer:wait_for#1",
            "timer:nap#1",
        ]
        replay.discard()

    def test_renaming_the_function_of_a_workflow_that_keeps_its_name_changes_no_timer(self) -> None:
        @workflow(name="purchase")
        async def before(run: Run) -> None:
            await run.sleep(1)

        @workflow(name="purchase")
        async def after(run: Run) -> None:
            await run.sleep(1)

        old, new = replayed(before), replayed(after)

        assert list(old.pending) == list(new.pending) == ["timer:purchase#1"]
        old.discard()
        new.discard()


class TestDirectCalls:
    def test_a_task_called_directly_says_how_to_call_it(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await fetch("a")

        with pytest.raises(DirectCallError, match=r"await fetch\.run\(run, \.\.\.\)"):
            result_of(replayed(flow))

    def test_so_does_a_workflow(self) -> None:
        @workflow
        async def inner(run: Run) -> None: ...

        @workflow
        async def outer(run: Run) -> None:
            await inner(run)

        with pytest.raises(DirectCallError, match=r"await inner\.run\(run, \.\.\.\)"):
            result_of(replayed(outer))

    def test_io_in_a_workflow_says_where_it_belongs(self) -> None:
        @workflow
        async def flow(run: Run) -> None:
            await asyncio.to_thread(print)

        with pytest.raises(WorkflowIOError, match="move it into a task"):
            result_of(replayed(flow))


class TestWhatIsKnownOfAnOperation:
    def test_failed_attempts_are_counted(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await fetch.run(run, "a")

        recording = Recording()
        for attempt in (1, 2):
            recording.add(
                EntryKind.ATTEMPT_FAILED,
                asked(fetch, "a"),
                attempt=attempt,
                failure=Failure(type="ValueError", message="no"),
                due_at=BEGAN + timedelta(seconds=attempt + 5),
            )

        replay = replayed(flow, recording)

        (operation,) = replay.pending.values()
        assert isinstance(operation, TaskOperation)
        assert (operation.failed_attempts, operation.delay_ms) == (2, 5000)
        assert operation.wait() == Wait(
            kind=WaitKind.RETRY, operation=operation.id, due_at=BEGAN + timedelta(seconds=7), delay_ms=5000
        )
        replay.discard()

    def test_what_a_retry_of_the_run_made_void_is_as_if_it_had_not_been(self) -> None:
        @workflow
        async def flow(run: Run) -> str:
            return await fetch.run(run, "a")

        recording = Recording().failed("a")
        recording.add(EntryKind.RETRIED, asked(fetch, "a"))

        replay = replayed(flow, recording)

        assert [operation.id for operation in replay.new] == [asked(fetch, "a")]
        assert replay.check() is None
        replay.discard()

    def test_a_signal_that_was_received_is_received_again(self) -> None:
        @workflow
        async def flow(run: Run) -> list[Any]:
            return [await run.wait_for_signal("go", int), await run.wait_for_signal("go")]

        recording = Recording()
        recording.add(EntryKind.SIGNAL_RECEIVED, "signal:go#1", payload=Payload("7"), source="item-1", name="go")

        replay = replayed(flow, recording)

        (operation,) = replay.new
        assert isinstance(operation, SignalOperation)
        assert operation.id == "signal:go#2"
        assert replay.history.sources == {"item-1"}
        replay.discard()
