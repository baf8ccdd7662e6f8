"""One workflow as its author changed it over time. Which edition a process has, its environment says."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from aiki import Run, TaskContext, task, workflow
from tests.scenarios.app import step
from tests.scenarios.effects import world_of_this_process

EDITION_VARIABLE = "AIKI_TEST_EDITION"
Body = Callable[[Run], Coroutine[Any, Any, list[str]]]


@task
async def stride(context: TaskContext, name: str) -> str:
    """Do what ``step`` does, under another name."""
    world_of_this_process().leave(f"{name}:begin", run_id=context.run_id)
    return name


async def _original(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await step.run(run, "b"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


async def _reordered(run: Run) -> list[str]:
    done = [await step.run(run, "c"), await step.run(run, "a"), await step.run(run, "b")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


async def _removed(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


async def _appended(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await step.run(run, "b"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d"), await step.run(run, "e")]


async def _inserted(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await step.run(run, "new"), await step.run(run, "b"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


async def _input_changed(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await step.run(run, "B"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


async def _renamed(run: Run) -> list[str]:
    done = [await step.run(run, "a"), await stride.run(run, "b"), await step.run(run, "c")]
    await asyncio.sleep(2)
    return [*done, await step.run(run, "d")]


EDITIONS: dict[str, Body] = {
    "original": _original,
    "reordered": _reordered,
    "removed": _removed,
    "appended": _appended,
    "inserted": _inserted,
    "input-changed": _input_changed,
    "renamed": _renamed,
}


@workflow(version="1.0.0")
async def evolving(run: Run) -> list[str]:
    """Do what this edition does."""
    return await EDITIONS[os.environ.get(EDITION_VARIABLE, "original")](run)
