"""The work of the soak: a little of everything that a run can do. Each result can be told beforehand."""

import asyncio

from aiki import Run, TaskContext, fixed, task, workflow

__all__ = [
    "chain",
    "double",
    "endless",
    "failing",
    "family",
    "far_double",
    "nap",
    "persistent",
    "remote",
    "signalled",
    "spread",
]


@task
async def double(number: int) -> int:
    """The cheapest task there is."""
    return 2 * number


@workflow(version="1.0.0")
async def chain(run: Run, number: int) -> int:
    """Three tasks, one after the other."""
    for _ in range(3):
        number = await double.run(run, number)
    return number


@workflow(version="1.0.0")
async def spread(run: Run, number: int) -> int:
    """Ten tasks side by side."""
    return sum(await asyncio.gather(*(double.run(run, number + add) for add in range(10))))


@workflow(version="1.0.0")
async def nap(run: Run, number: int) -> int:
    """A task, a durable sleep, a task."""
    doubled = await double.run(run, number)
    await run.sleep(0.5 + number % 4)
    return await double.run(run, doubled)


@task(retry=fixed(max_attempts=4, delay=0.5))
async def flaky(context: TaskContext, number: int) -> int:
    """Fail twice."""
    if context.attempt < 3:
        raise ConnectionError(f"attempt {context.attempt} found nobody")
    return 2 * number


@workflow(version="1.0.0")
async def persistent(run: Run, number: int) -> int:
    """A task whose retries go through the delay queues."""
    return await flaky.run(run, number)


@workflow(version="1.0.0")
async def family(run: Run, number: int) -> int:
    """Two child runs."""
    return sum(await asyncio.gather(chain.run(run, number), chain.run(run, number + 1)))


@task(queue="soak-elsewhere")
async def far_double(number: int) -> int:
    """A task that has a queue of its own."""
    return 2 * number


@workflow(version="1.0.0")
async def remote(run: Run, number: int) -> int:
    """A task on another queue."""
    return await far_double.run(run, number)


@workflow(version="1.0.0")
async def signalled(run: Run, number: int) -> int:
    """Wait to be told a number."""
    return number + await run.wait_for_signal("number", int)


@task
async def refuse(number: int) -> int:
    """Never succeed."""
    raise ValueError(f"{number} is refused")


@workflow(version="1.0.0")
async def failing(run: Run, number: int) -> int:
    """Fail, for all to see."""
    return await refuse.run(run, number)


@workflow(version="1.0.0")
async def endless(run: Run, number: int) -> int:
    """Sleep until somebody cancels it."""
    await run.sleep(3600)
    return number
