"""The app of the command line's tests: orders that are charged, packed and sent. What tasks do is noted in a file."""

import asyncio
import os
from pathlib import Path

from aiki import Run, TaskContext, exponential, task, workflow


def note(text: str) -> None:
    """Note that something was done to the world."""
    with Path(os.environ.get("SHOP_NOTES", "notes.txt")).open("a", encoding="utf-8") as notes:
        notes.write(text + "\n")


@task(retry=exponential(max_attempts=3, base_delay=0.1))
async def charge(ctx: TaskContext, amount: int) -> str:
    """Fail twice, then charge."""
    if ctx.attempt < 3:
        raise ConnectionError("the bank does not answer")
    note(f"charged {amount}")
    return f"charged {amount}"


@task
async def pack(item: str) -> str:
    """Pack."""
    note(f"packed {item}")
    return f"packed {item}"


@task
async def send() -> str:
    """Take as long as there is a file named `slow`."""
    note("sending")
    while Path("slow").exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.02)
    note("sent")
    return "sent"


@task
async def explode() -> None:
    """Fail, unless somebody mended it."""
    if not Path("mended").exists():  # noqa: ASYNC240
        raise ValueError("boom [not markup]")


@workflow(version="1.0.0")
async def order(run: Run, item: str, amount: int = 3) -> dict[str, str]:
    """Charge and pack at the same time, then send."""
    charged, packed = await asyncio.gather(charge.run(run, amount), pack.run(run, item))
    return {"charged": charged, "packed": packed, "sent": await send.run(run)}


@workflow
async def approval(run: Run, who: str) -> str:
    """Wait for somebody's word."""
    run.set_status(f"asking {who}")
    return await run.wait_for_signal("approved", str)


@workflow
async def nap(run: Run) -> str:
    """Sleep for a day."""
    await run.sleep(86400)
    return "rested"


@workflow
async def failing(run: Run) -> None:
    """Fail until mended."""
    await explode.run(run)


@task
async def crash() -> str:
    """Kill the process, unless somebody mended it."""
    note("crashing")
    if not Path("mended").exists():  # noqa: ASYNC240
        os._exit(1)
    return "mended"


@workflow
async def deadly(run: Run) -> str:
    """Kill whoever executes it."""
    return await crash.run(run)
