"""Threads for plain functions: bounded, in the caller's context, and in nobody's way."""

import asyncio
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from aiki.worker.threads import Threads

colour: ContextVar[str] = ContextVar("colour", default="none")


async def test_a_function_runs_elsewhere_in_the_context_of_its_caller() -> None:
    colour.set("green")

    def look() -> tuple[str, bool]:
        return colour.get(), threading.current_thread() is threading.main_thread()

    assert await Threads(threads_max=1).call(look) == ("green", False)


async def test_what_a_function_raises_is_raised_where_it_was_called() -> None:
    def fail() -> None:
        raise ValueError("no")

    def stop() -> None:
        raise StopIteration

    threads = Threads(threads_max=1)

    with pytest.raises(ValueError, match="no"):
        await threads.call(fail)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.call(stop)


async def test_no_more_functions_run_than_there_are_threads() -> None:
    threads, go = Threads(threads_max=2), threading.Event()
    begun: list[int] = []

    def wait() -> None:
        begun.append(1)
        go.wait(10)

    calls = [asyncio.create_task(threads.call(wait)) for _ in range(5)]
    async with asyncio.timeout(10):
        while len(begun) < 2:  # noqa: ASYNC110 - a thread tells it
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert len(begun) == 2

    go.set()

    await asyncio.gather(*calls)
    assert len(begun) == 5


async def test_a_cancelled_call_frees_its_thread_when_the_function_ends() -> None:
    threads, go = Threads(threads_max=1), threading.Event()
    first = asyncio.create_task(threads.call(lambda: go.wait(10)))
    await asyncio.sleep(0)

    first.cancel()
    second = asyncio.create_task(threads.call(lambda: "second"))
    await asyncio.sleep(0)
    assert not second.done()
    go.set()

    assert await asyncio.wait_for(second, 10) == "second"


def test_a_function_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, time
from aiki.worker.threads import Threads

async def main():
    asyncio.create_task(Threads(threads_max=1).call(lambda: time.sleep(3600)))
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
