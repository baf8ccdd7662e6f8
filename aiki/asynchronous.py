"""What asyncio leaves to its users."""

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end"]

# What a task does at its end, it has done by then as a rule.
AGAIN_SECONDS = 5.0


async def end(*tasks: "asyncio.Future[Any] | None") -> None:
    """Cancel *tasks* and wait until all of them are over, however they end. ``None`` is nothing to wait for.

    They are cancelled again from time to time. In Python 3.11, ``asyncio.wait_for`` drops a cancellation that comes in
    the moment of success (python/cpython#86296), and drivers use it: who calls them in a loop would go on for ever.
    """
    pending = _there(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    for task in _there(tasks):
        if not task.cancelled():
            task.exception()  # Whoever has to hear of it has other means.


def _there(tasks: "Iterable[asyncio.Future[Any] | None]") -> "set[asyncio.Future[Any]]":
    return {task for task in tasks if task is not None}
