"""How a service stops: the first Ctrl-C (or SIGTERM) lets it finish, the second ends it at once.

Ending at once is safe. What was not recorded is delivered to somebody else, as if the
process had been killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiki.cli.groups import INTERRUPTED
from aiki.cli.output import remark

__all__ = ["Stop", "stop_on_signals"]


class Stop:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.exit_code = 0
        """What the process should end with: 130 after Ctrl-C, as a shell expects, 0 when it was told to terminate."""

    async def serve(self, *services: Coroutine[Any, Any, None], stop: Callable[[], Awaitable[None]]) -> None:
        """Let *services* run until somebody asks, or until one ends by itself; then *stop*, and wait for all of them.

        Raises what a service raised.
        """
        running = [asyncio.create_task(service) for service in services]
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait([asked, *running], return_when=asyncio.FIRST_COMPLETED)
            await stop()
            await asyncio.gather(*running)
        finally:
            for task in (asked, *running):
                task.cancel()

    def ask(self, number: int) -> None:
        """Note that somebody asked."""
        self.exit_code = INTERRUPTED if number == signal.SIGINT else 0
        self._asked.set()

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked already."""
        return self._asked.is_set()


@contextmanager
def stop_on_signals(waits_for: Callable[[], str]) -> Iterator[Stop]:
    """Listen to SIGINT and SIGTERM. *waits_for* says what a stop waits for, in words."""
    loop = asyncio.get_running_loop()
    stop = Stop()

    def handle(number: int) -> None:
        if stop.is_asked:
            remark("stopped at once; what was not recorded is done again elsewhere")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)  # No cleanup: somebody wants this to be over, and nothing depends on it.
        stop.ask(number)
        remark(f"stopping: {waits_for()}; once more to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
