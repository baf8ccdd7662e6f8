"""Threads for tasks that are plain functions."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from threading import Thread
from typing import Any

__all__ = ["Threads"]


class Threads:
    """Calls functions in threads, a bounded number at a time.

    The threads are daemons: one that hangs for ever does not keep the process from ending. (The
    threads of an executor would: the interpreter waits for them.)
    """

    def __init__(self, *, threads_max: int) -> None:
        self._free = asyncio.Semaphore(threads_max)
        self._numbers = count(1)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call *function* in the context of the caller, and give what it returns or raises.

        Being cancelled does not stop the function; its thread counts until it ends.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        context = copy_context()

        def end(value: Any, error: BaseException | None) -> None:
            self._free.release()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(value)
            elif isinstance(error, StopIteration):  # What a future refuses to carry.
                outcome.set_exception(RuntimeError(f"the function raised {error!r}"))
            else:
                outcome.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = context.run(function)
            except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the caller
                error = raised
            with suppress(RuntimeError):  # The loop may be closed by now.
                loop.call_soon_threadsafe(end, value, error)

        Thread(target=work, name=f"aiki-task-{next(self._numbers)}", daemon=True).start()
        return await outcome
