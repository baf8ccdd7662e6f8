"""Waiting with an end, and so that it can be ended."""

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar

__all__ = ["Deadline", "apart"]

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Await *work* in a task of its own, which is cancelled with the caller.

    ``asyncio.wait_for``, which the driver waits with, swallows a cancellation that comes in the very
    moment of success. Here the caller's own cancellation never passes through it.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_forget)
        raise


def _forget(task: asyncio.Task[Any]) -> None:
    """Look at what nobody else will, so that it is not reported as overlooked."""
    if not task.cancelled():
        task.exception()


class Deadline:
    """A timeout that several steps share."""

    def __init__(self, timeout: float) -> None:
        self._ends = monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds that are left, never below zero."""
        return max(self._ends - monotonic(), 0.0)
