"""A clock that is moved by hand: hours pass in a test without waiting for them."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

from aiki.ports.clock import Clock

__all__ = ["ManualClock"]

# A turn of the event loop moves one callback chain by one step. What follows from a moment (a message that is
# handed over, decided, stored, answered) takes dozens of steps, never hundreds.
_TURNS_TO_SETTLE = 100


class ManualClock(Clock):
    """Time stands still until a test says otherwise; whoever sleeps wakes in the order of being due."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Tell the time, truncated to milliseconds as everywhere."""
        return self._now.replace(microsecond=self._now.microsecond // 1000 * 1000)

    def monotonic(self) -> float:
        """Tell the seconds that the test let pass."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has moved the clock this far; one turn of the event loop if that is no time at all."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    @property
    def sleepers(self) -> int:
        """How many sleep right now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: everybody who is due by then wakes at their own moment, and acts before time goes on."""
        await self._settle()
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, future = heapq.heappop(self._sleepers)
            self._move_to(moment)
            if not future.done():  # Whoever slept may have been cancelled.
                future.set_result(None)
                await self._settle()
        self._move_to(end)
        await self._settle()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; nobody wakes, no time has passed."""
        self._now += timedelta(seconds=seconds)

    def _move_to(self, moment: float) -> None:
        self._now += timedelta(seconds=moment - self._elapsed)
        self._elapsed = moment

    async def _settle(self) -> None:
        for _ in range(_TURNS_TO_SETTLE):
            await asyncio.sleep(0)
