"""The workflows that are measured."""

import asyncio
import os
import time
from datetime import datetime, timedelta

from aiki import Client, Run, task, workflow
from bench.marks import Marks

__all__ = ["counting", "fan_out", "long_count", "napping", "run_three", "three_steps"]

STEP_SECONDS = 0.005


@task
async def add(n: int) -> int:
    """Add one: the cheapest task there is, so that what is measured is the engine."""
    return n + 1


@workflow(version="1.0.0")
async def three_steps(run: Run, start: int) -> int:
    """Three tasks, one after the other."""
    number = start
    for _ in range(3):
        number = await add.run(run, number)
    return number


async def run_three(client: Client, number: int) -> None:
    """Run ``three_steps`` once, and see that it is right."""
    handle = await three_steps.enqueue(client, number)
    assert await handle.wait_for_completion(timeout=120) == number + 3


@workflow(version="1.0.0")
async def fan_out(run: Run, width: int) -> int:
    """Many tasks side by side."""
    return sum(await asyncio.gather(*(add.run(run, number) for number in range(width))))


@workflow(version="1.0.0")
async def long_count(run: Run, steps: int) -> int:
    """A run with a long history."""
    number = 0
    for _ in range(steps):
        number = await add.run(run, number)
    return number


@task
async def seconds_since(due: datetime) -> float:
    """How late it is, by the clock of the machine."""
    return time.time() - due.timestamp()


@workflow(version="1.0.0")
async def napping(run: Run, seconds: float) -> float:
    """Sleep, and tell how late the next task began."""
    due = run.now() + timedelta(seconds=seconds)
    await run.sleep(seconds)
    return await seconds_since.run(run, due)


@task
async def marked_step(n: int) -> int:
    """Leave a mark: which process began this step, and when."""
    Marks.of_this_process().leave()
    await asyncio.sleep(STEP_SECONDS)
    return n + 1


@workflow(version="1.0.0")
async def counting(run: Run, steps: int) -> int:
    """Steps that leave marks, so that the loss of a worker in between shows."""
    assert os.environ.get("BENCH_MARKS"), "the marks have no file"
    number = 0
    for _ in range(steps):
        number = await marked_step.run(run, number)
    return number
