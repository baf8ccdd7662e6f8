"""Alarms: the operations of a run that go on by themselves, and when."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from heapq import heappop, heappush

from aiki.ports.clock import Clock
from aiki.worker.operations import Operation

__all__ = ["Alarms", "Bell"]


class Alarms:
    """Operations by the moment that they are due. Those that are over fall out by themselves."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Operation]] = []
        self._count = 0

    def set(self, operation: Operation) -> None:
        """Expect *operation* when it is due, if it ever is."""
        if operation.due is not None:
            self._count += 1
            heappush(self._heap, (operation.due, self._count, operation))

    def take_due(self, now: datetime) -> list[Operation]:
        """Give the operations that are due, the earliest first."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, _, operation = heappop(self._heap)
            if not (operation.is_over or operation.busy):
                due.append(operation)
        return due

    def take_nearest(self) -> Operation | None:
        """Give the operation that is due next, as if it were due now."""
        self._forget_what_is_over()
        return heappop(self._heap)[2] if self._heap else None

    @property
    def nearest(self) -> datetime | None:
        """When the next one is due."""
        self._forget_what_is_over()
        return self._heap[0][0] if self._heap else None

    def _forget_what_is_over(self) -> None:
        while self._heap and (self._heap[0][2].is_over or self._heap[0][2].busy):
            heappop(self._heap)


class Bell:
    """Rings once, after a while; set again, it rings at the new time only."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._moment: datetime | None = None
        self._waiting: asyncio.Future[None] | None = None

    def set(self, moment: datetime, seconds: float) -> None:
        """Ring at *moment*, which is *seconds* away."""
        if self._moment == moment:
            return
        self.stop()
        self._moment = moment
        self._waiting = asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0)))
        self._waiting.add_done_callback(self._over)

    def stop(self) -> None:
        """Do not ring."""
        self._moment = None
        if self._waiting is not None:
            self._waiting.cancel()

    def take_down(self) -> None:
        """Do not ring, now or ever: whoever would have heard it is held no longer."""
        self.stop()
        self._ring = _nobody

    def _over(self, waited: "asyncio.Future[None]") -> None:
        if waited is self._waiting and not waited.cancelled():
            self._moment = self._waiting = None
            self._ring()


def _nobody() -> None:
    """Hear nothing."""
