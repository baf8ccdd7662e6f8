"""The private event loop: asyncio's own building blocks work on it, and the world does not."""

import asyncio
import gc
import os
import socket
import subprocess
import threading
from asyncio.events import TimerHandle
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import getweakrefs

import pytest

from aiki.errors import WorkflowIOError, WorkflowStuckError
from aiki.worker import isolation
from aiki.worker.loop import WorkflowLoop

T = TypeVar("T")


class Hourglass:
    """Timers fire in the order of their deadlines, as soon as nothing else can happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, TimerHandle]] = []
        self.ignored: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def timer_set(self, handle: TimerHandle, delay: float) -> None:
        self.timers.append((self.now + delay, handle))

    def timer_cancelled(self, handle: TimerHandle) -> None:
        self.timers = [timer for timer in self.timers if timer[1] is not handle]

    def went_wrong(self, context: dict[str, Any]) -> None:
        self.ignored.append(context)

    def turn(self, loop: WorkflowLoop) -> bool:
        if not self.timers:
            return False
        self.now, handle = min(self.timers, key=lambda timer: timer[0])
        self.timer_cancelled(handle)
        loop.fire(handle)
        return True


class Stage:
    def __init__(self) -> None:
        self.hourglass = Hourglass()
        self.loop = WorkflowLoop(self.hourglass)  # type: ignore[abstract]

    def settle(self) -> None:
        with self.loop.running():
            self.loop.run_until_quiescent()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = self.loop.create_task(coroutine)
        self.settle()
        while not task.done() and self.hourglass.turn(self.loop):
            self.settle()
        assert task.done(), "it waits for something that does not happen"
        self.loop.discard()
        return task.result()


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def after(seconds: float, value: T) -> T:
    await asyncio.sleep(seconds)
    return value


class TestBuildingBlocks:
    def test_gather_gives_results_in_the_order_of_asking(self, stage: Stage) -> None:
        async def workflow() -> tuple[str, str]:
            return await asyncio.gather(after(2, "slow"), after(1, "fast"))

        assert list(stage.run(workflow())) == ["slow", "fast"]
        assert stage.hourglass.now == 2

    def test_a_task_group_cancels_its_others_when_one_fails(self, stage: Stage) -> None:
        cancelled: list[str] = []

        async def failing() -> None:
            await asyncio.sleep(1)
            raise ValueError("no")

        async def waiting(name: str) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancelled.append(name)
                raise

        async def workflow() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(waiting("a"))
                group.create_task(failing())
                group.create_task(waiting("b"))

        with pytest.raises(ExceptionGroup):
            stage.run(workflow())
        assert cancelled == ["a", "b"]
        assert stage.hourglass.now == 1

    def test_timeout_and_wait_for_end_what_takes_too_long(self, stage: Stage) -> None:
        async def workflow() -> float:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.sleep(50)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(50), 3)
            async with asyncio.timeout(10) as limit:
                await asyncio.sleep(1)
            assert not limit.expired()
            return asyncio.get_running_loop().time()

        assert stage.run(workflow()) == 6

    def test_wait_and_as_completed_give_what_is_done_first(self, stage: Stage) -> None:
        async def workflow() -> list[str]:
            tasks = [asyncio.create_task(after(n, f"{n}")) for n in (3, 1, 2)]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == ["1"]
            return [await each for each in asyncio.as_completed(pending)]

        assert stage.run(workflow()) == ["2", "3"]

    def test_locks_events_queues_semaphores_and_conditions_work(self, stage: Stage) -> None:
        async def workflow() -> list[Any]:
            seen: list[Any] = []
            lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue[int](maxsize=1)
            condition, two = asyncio.Condition(), asyncio.Semaphore(2)

            async def produce() -> None:
                for n in range(3):
                    await queue.put(n)
                async with condition:
                    condition.notify_all()
                event.set()

            async def use(name: str) -> None:
                async with two, lock:
                    await asyncio.sleep(1)
                    seen.append(name)

            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                for name in "abc":
                    group.create_task(use(name))
                async with condition:
                    group.create_task(consume(queue, seen))
                    await condition.wait()
                await event.wait()
            return seen

        async def consume(queue: asyncio.Queue[int], seen: list[Any]) -> None:
            seen.extend([await queue.get() for _ in range(3)])

        assert stage.run(workflow()) == [0, 1, 2, "a", "b", "c"]

    def test_shield_keeps_what_it_guards_from_being_cancelled(self, stage: Stage) -> None:
        async def workflow() -> str:
            inner = asyncio.create_task(after(5, "kept"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(inner), 1)
            return await inner

        assert stage.run(workflow()) == "kept"

    def test_sets_of_tasks_and_futures_have_one_order(self) -> None:
        async def workflow() -> list[int]:
            tasks = [asyncio.create_task(after(1, n)) for n in range(50)]
            done, _ = await asyncio.wait(tasks)
            return [task.result() for task in done]

        # Objects in between move the addresses that sets would otherwise be ordered by.
        orders = []
        clutter = []
        for n in range(5):
            orders.append(Stage().run(workflow()))
            clutter.append([object() for _ in range(n * 37)])

        assert all(order == orders[0] for order in orders)

    def test_a_task_that_nobody_holds_is_not_lost_to_the_garbage_collector(self, stage: Stage) -> None:
        async def workflow() -> str:
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def background() -> None:
                await asyncio.sleep(1)
                done.set_result("done")

            asyncio.create_task(background())  # noqa: RUF006 - forgetting it is the point
            gc.collect()
            return await done

        assert stage.run(workflow()) == "done"

    def test_an_asynchronous_generator_that_is_left_early_is_finished_here(self, stage: Stage) -> None:
        async def numbers(closed: list[str]) -> AsyncIterator[int]:
            try:
                while True:
                    await asyncio.sleep(1)
                    yield 1
            finally:
                await asyncio.sleep(1)
                closed.append("closed")

        async def workflow() -> list[str]:
            closed: list[str] = []
            async for _ in numbers(closed):
                break
            await asyncio.sleep(5)
            return closed

        assert stage.run(workflow()) == ["closed"]


class TestTheWorld:
    @pytest.mark.parametrize(
        ("reach", "what"),
        [
            (lambda: asyncio.to_thread(print), "threads"),
            (lambda: asyncio.open_connection("127.0.0.1", 1), "network connections"),
            (lambda: asyncio.start_server(lambda _r, _w: None, "127.0.0.1"), "network connections"),
            (lambda: asyncio.create_subprocess_exec("true"), "subprocesses"),
            (lambda: asyncio.create_subprocess_shell("true"), "subprocesses"),
            (lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80), "name resolution"),
        ],
    )
    def test_io_of_asyncio_says_to_move_it_into_a_task(
        self, stage: Stage, reach: Callable[[], Awaitable[Any]], what: str
    ) -> None:
        async def workflow() -> None:
            await reach()

        with pytest.raises(WorkflowIOError, match=what) as raised:
            stage.run(workflow())
        assert "move it into a task" in str(raised.value)

    @pytest.mark.parametrize(
        ("reach", "what"),
        [
            (lambda: threading.Thread(target=print).start(), "threads"),
            (lambda: ThreadPoolExecutor(1).submit(print), "threads"),
            (socket.socket, "sockets"),
            (lambda: socket.getaddrinfo("localhost", 80), "name resolution"),
            (lambda: subprocess.run(["true"], check=True), "subprocesses"),
            (lambda: os.system("true"), "subprocesses"),
            (lambda: asyncio.get_running_loop().add_signal_handler(2, print), "signal handlers"),
            (lambda: asyncio.get_running_loop().run_forever(), "run_forever"),
        ],
    )
    def test_what_goes_past_asyncio_is_caught_as_well(
        self, stage: Stage, reach: Callable[[], object], what: str
    ) -> None:
        async def workflow() -> None:
            reach()

        with pytest.raises(WorkflowIOError, match=what):
            stage.run(workflow())

    def test_the_ban_ends_with_the_burst(self, stage: Stage) -> None:
        async def workflow() -> None:
            with isolation.outside():
                socket.socket().close()

        stage.run(workflow())

        socket.socket().close()
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()

    def test_other_threads_are_free_while_a_workflow_is_driven(self, stage: Stage) -> None:
        go, done = threading.Event(), threading.Event()
        problems: list[BaseException] = []

        def elsewhere() -> None:
            go.wait(10)
            try:
                socket.socket().close()
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                problems.append(error)
            done.set()

        thread = threading.Thread(target=elsewhere)
        thread.start()

        async def workflow() -> None:
            go.set()
            assert done.wait(10)

        stage.run(workflow())
        thread.join()
        assert not problems

    def test_the_loop_around_it_is_the_running_one_again_afterwards(self) -> None:
        async def around() -> None:
            outer = asyncio.get_running_loop()
            seen: list[object] = []
            done = outer.create_future()

            def drive() -> None:
                async def workflow() -> None:
                    seen.append(asyncio.get_running_loop())

                stage = Stage()
                stage.run(workflow())
                assert seen == [stage.loop]
                assert asyncio.get_running_loop() is outer
                done.set_result(None)

            outer.call_soon(drive)
            await done

        asyncio.run(around())


class TestComingToRest:
    def test_a_workflow_that_never_rests_is_stopped(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiki.worker.loop.CALLBACKS_MAX", 10_000)

        async def workflow() -> None:
            while True:  # noqa: ASYNC110 - the mistake that this is about
                await asyncio.sleep(0)

        with pytest.raises(WorkflowStuckError, match="did not come to rest"):
            stage.run(workflow())
        stage.loop.discard()

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    def test_an_exception_that_ends_processes_ends_the_workflow_only(
        self, stage: Stage, error: type[BaseException]
    ) -> None:
        async def workflow() -> None:
            raise error

        task = stage.loop.create_task(workflow())
        stage.settle()

        assert isinstance(task.exception(), error)
        stage.loop.discard()

    def test_an_exception_that_nobody_looks_at_is_reported(self, stage: Stage) -> None:
        async def failing() -> None:
            raise ValueError("unseen")

        async def workflow() -> None:
            asyncio.create_task(failing())  # noqa: RUF006 - nobody is to look at it
            await asyncio.sleep(1)

        stage.run(workflow())
        gc.collect()

        assert [str(context["exception"]) for context in stage.hourglass.ignored] == ["unseen"]


class TestBeingDiscarded:
    def discarded(self, stage: Stage, workflow: Coroutine[Any, Any, Any]) -> None:
        stage.loop.create_task(workflow)
        stage.settle()
        stage.loop.discard()
        gc.collect()

    def test_it_does_not_pass_through_except_exception(self, stage: Stage) -> None:
        noticed: list[str] = []

        async def workflow() -> None:
            try:
                await asyncio.Event().wait()
            except Exception:  # noqa: BLE001 - what a workflow may well do
                noticed.append("an exception")
            noticed.append("went on")

        self.discarded(stage, workflow())

        assert not noticed

    def test_a_finally_runs_and_can_start_nothing(self, stage: Stage) -> None:
        steps: list[str] = []

        async def workflow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                steps.append("finally")
                try:
                    asyncio.create_task(asyncio.sleep(1))  # noqa: RUF006 - it never comes to be
                    steps.append("task")
                finally:
                    await asyncio.sleep(1)
                    steps.append("slept")

        self.discarded(stage, workflow())

        assert steps == ["finally"]
        assert not stage.hourglass.timers

    def test_one_that_waits_again_and_again_is_closed_again_and_again(self, stage: Stage) -> None:
        waits: list[int] = []

        async def workflow() -> None:
            for n in range(5):
                try:
                    await asyncio.Event().wait()
                except BaseException:  # noqa: BLE001 - as stubborn as can be
                    waits.append(n)

        self.discarded(stage, workflow())

        assert waits == [0, 1, 2, 3, 4]

    def test_whatever_it_raises_concerns_nobody(self, stage: Stage) -> None:
        async def workflow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyboardInterrupt

        self.discarded(stage, workflow())

        assert not stage.hourglass.ignored

    def test_a_suspended_generator_disappears_without_running(self, stage: Stage) -> None:
        steps: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                steps.append("generator")

        async def workflow() -> None:
            generator = numbers()
            await anext(generator)
            await asyncio.Event().wait()

        self.discarded(stage, workflow())

        assert not steps


def test_tasks_of_different_runs_have_different_places_among_the_tasks_of_the_process() -> None:
    stages = [Stage() for _ in range(50)]

    tasks = [stage.loop.create_task(after(1, None)) for stage in stages]

    assert {hash(task) for task in tasks} == {1}
    assert len({hash(reference) for task in tasks for reference in getweakrefs(task)}) == 50
    for stage in stages:
        stage.loop.discard()
