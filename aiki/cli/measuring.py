"""Measuring: the same work many times, so many at once or one after the other, with the time that each took."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

__all__ = ["Measured", "in_flight", "one_at_a_time", "percentile"]

Work = Callable[[int], Awaitable[object]]
"""Does the work once; it is told which one of all it is, from 0 on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How long the work took. Everything is in seconds."""

    seconds: float
    """From the beginning of the first to the end of the last."""
    taken: Sequence[float]
    """What each took, in the order in which they ended."""
    ended: Sequence[float]
    """When each ended, after the beginning of the first."""

    @property
    def per_second(self) -> float:
        """How many ended in a second."""
        return len(self.taken) / self.seconds


async def in_flight(work: Work, *, times: int, at_once: int) -> Measured:
    """Do *work* so many *times*, *at_once* of them at any moment while there are enough left.

    When one fails the others are given up, and its error is raised.
    """
    taken: list[float] = []
    ended: list[float] = []
    numbers = iter(range(times))
    beginning = time.perf_counter()

    async def keep_on() -> None:
        for number in numbers:
            began = time.perf_counter()
            await work(number)
            now = time.perf_counter()
            taken.append(now - began)
            ended.append(now - beginning)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, times)):
            group.create_task(keep_on())
    return Measured(time.perf_counter() - beginning, taken, ended)


async def one_at_a_time(work: Work, *, times: int) -> Measured:
    """Do *work* so many *times*, each after the one before."""
    return await in_flight(work, times=times, at_once=1)


def percentile(values: Sequence[float], share: float) -> float:
    """Find the value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
