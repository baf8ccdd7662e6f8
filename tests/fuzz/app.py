"""What the worker of these tests serves: a quick workflow, a slow one, and tasks of a queue of their own."""

from aiki import Run, task, workflow
from tests.scenarios.app import count_to_three, five_steps

__all__ = ["count_to_three", "five_steps", "picture", "render"]


@task(queue="gpu")
async def render(frame: int) -> str:
    """Do what needs another machine."""
    return f"frame {frame}"


@workflow(version="1.0.0")
async def picture(run: Run, frame: int) -> str:
    """Have a task executed elsewhere."""
    return await render.run(run, frame)
