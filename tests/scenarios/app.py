"""The workflows of the scenarios, as an application would write them."""

import asyncio
import os
import signal
from typing import Any

from aiki import Run, TaskContext, exponential, task, workflow
from tests.scenarios.effects import world_of_this_process


async def _pass_the_barrier(name: str) -> None:
    world = world_of_this_process()
    while world.is_held(name):  # noqa: ASYNC110 - the barrier is a file, put up and taken away by another process
        await asyncio.sleep(0.005)


@task
async def step(context: TaskContext, name: str) -> str:
    """Leave a mark before and after the barrier of this name."""
    world = world_of_this_process()
    world.leave(f"{name}:begin", run_id=context.run_id, attempt=context.attempt, key=context.idempotency_key)
    await _pass_the_barrier(name)
    world.leave(f"{name}:end", run_id=context.run_id, attempt=context.attempt, key=context.idempotency_key)
    return name


@workflow(version="1.0.0")
async def five_steps(run: Run) -> list[str]:
    """Five tasks, one after the other."""
    return [await step.run(run, f"step-{number}") for number in range(1, 6)]


@task
async def add(context: TaskContext, number: int) -> int:
    """Add one, and leave a mark."""
    world_of_this_process().leave("add", run_id=context.run_id, attempt=context.attempt, key=context.idempotency_key)
    return number + 1


@workflow(version="1.0.0")
async def count_to_three(run: Run, start: int) -> int:
    """Three quick tasks."""
    number = start
    for _ in range(3):
        number = await add.run(run, number)
    return number


@workflow(version="1.0.0")
async def nap(run: Run, seconds: float) -> str:
    """A task, a durable sleep, a task."""
    await step.run(run, "before")
    await asyncio.sleep(seconds)
    return await step.run(run, "after")


class TooBusyError(Exception):
    """The flaky service is too busy."""


@task(retry=exponential(max_attempts=4, base_delay=0.4, factor=2.0))
async def flaky(context: TaskContext) -> int:
    """Fail three times."""
    world_of_this_process().leave("flaky", run_id=context.run_id, attempt=context.attempt, key=context.idempotency_key)
    if context.attempt < 4:
        raise TooBusyError(f"attempt {context.attempt} found no line")
    return context.attempt


@workflow(version="1.0.0")
async def persistent(run: Run) -> int:
    """A task that succeeds at its fourth attempt."""
    return await flaky.run(run)


@task
async def deadly(context: TaskContext) -> str:
    """Kill the worker, until the world says that this was mended."""
    world = world_of_this_process()
    world.leave("deadly", run_id=context.run_id, attempt=context.attempt)
    if world.flag("mended") is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@workflow(version="1.0.0")
async def killer(run: Run) -> str:
    """A run that nobody survives."""
    return await deadly.run(run)


@workflow(version="1.0.0")
async def approval(run: Run) -> str:
    """Wait for a person."""
    decision = await run.wait_for_signal("decision", str)
    return f"{decision} by a person"


class Opaque:
    """Nothing that JSON could say."""


@task
async def opaque() -> Any:
    """Return what cannot be written."""
    return Opaque()


@workflow(version="1.0.0")
async def unwritable(run: Run) -> Any:
    """Await a result that cannot be recorded."""
    return await opaque.run(run)
