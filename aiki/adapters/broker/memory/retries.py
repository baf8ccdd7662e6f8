"""Retries: events that come back after a delay, as from the retry queues of a real broker.

All messages of one delay wait equally long, so first in is first out and one task
can wait for the oldest. They are in memory only: who needs more has the store.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from aiki.asynchronous import end
from aiki.engine.events import Event
from aiki.ports.clock import Clock

__all__ = ["RetryLines"]


class RetryLines:
    """One line of waiting events for each delay. Lines move while somebody is connected."""

    def __init__(self, clock: Clock, put: Callable[[Event], None]) -> None:
        self._clock = clock
        self._put = put
        self._lines: dict[int, deque[tuple[float, Event]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._moving = False

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return sum(len(line) for line in self._lines.values())

    def arm(self, event: Event, *, delay_ms: int) -> None:
        """Put *event* back after *delay_ms*."""
        line = self._lines.setdefault(delay_ms, deque())
        line.append((self._clock.monotonic() + delay_ms / 1000, event))
        self._move(delay_ms)

    def resume(self) -> None:
        """Let the lines move."""
        self._moving = True
        for delay_ms in self._lines:
            self._move(delay_ms)

    async def pause(self) -> None:
        """Let the lines stand; what comes due meanwhile is put back when they move again."""
        self._moving = False
        await end(*self._tasks.values())

    def clear(self) -> None:
        """Lose everything that waits."""
        for line in self._lines.values():
            line.clear()

    def _move(self, delay_ms: int) -> None:
        if self._moving and delay_ms not in self._tasks and self._lines[delay_ms]:
            task = asyncio.create_task(self._run(self._lines[delay_ms]), name=f"aiki-memory-retry-{delay_ms}")
            self._tasks[delay_ms] = task
            task.add_done_callback(lambda _: self._ended(delay_ms))

    def _ended(self, delay_ms: int) -> None:
        del self._tasks[delay_ms]
        self._move(delay_ms)  # Something may have joined the line after its task had found it empty.

    async def _run(self, line: deque[tuple[float, Event]]) -> None:
        while line:
            due, event = line[0]
            if (left := due - self._clock.monotonic()) > 0:
                await self._clock.sleep(left)
                continue
            line.popleft()
            self._put(event)
