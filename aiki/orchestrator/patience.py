"""Patience: what to do while the store or the broker cannot be reached. Wait, longer each time, and try again."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiki.errors import StoreUnavailableError
from aiki.observability import get_logger
from aiki.ports.clock import Clock

__all__ = ["Backoff", "StorePatience", "pause", "spread", "unless_set"]

T = TypeVar("T")

log = get_logger(__name__)

_SPREAD = 0.25


class Backoff:
    """Waits that double from *first* to *longest*, each cut by up to a half at random.

    The jitter keeps many processes that lost the same server from coming back in step.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def delay(self) -> float:
        """Tell how long to wait this time; the next time is longer."""
        delay, self._next = self._next, min(self._next * 2, self._longest)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the first wait again: something worked."""
        self._next = self._first


def spread(seconds: float) -> float:
    """Shorten or lengthen *seconds* by up to a quarter: what was started together should not act together for ever."""
    return seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)


async def unless_set(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Wait for *work*, but no longer than until *event* is set: then it is cancelled, and there is no answer."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stop.cancel()


async def pause(clock: Clock, seconds: float, *, unless: asyncio.Event) -> None:
    """Wait *seconds*, or until the event is set."""
    if not unless.is_set():
        await unless_set(unless, clock.sleep(seconds))


class StorePatience:
    """Insists on the store: what it refuses is tried again until it works.

    Everything that goes through here may be done twice without harm; that is what the
    store promises. The log says once that the store is away, and once that it is back.
    """

    def __init__(self, clock: Clock, *, retry_delay: float, retry_delay_max: float) -> None:
        self._clock = clock
        self._retry_delay = retry_delay
        self._retry_delay_max = retry_delay_max
        self._changes = 0
        self.is_store_up = True

    async def insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do *operation*, again and again as long as the store is unavailable; other errors pass through."""
        backoff = Backoff(self._retry_delay, self._retry_delay_max)
        while True:
            try:
                with self.watching():
                    return await operation()
            except StoreUnavailableError:
                await self._clock.sleep(backoff.delay())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Learn from what becomes of a call whether the store can be reached.

        One that began before the last change says nothing of the time after it: an answer that was on its way
        when the store went away does not mean that it is back.
        """
        began = self._changes
        try:
            yield
        except StoreUnavailableError as error:
            if self.is_store_up and self._changes == began:
                self._note(is_up=False)
                log.warning("store.unavailable", error=error.message)
            raise
        if not self.is_store_up and self._changes == began:
            self._note(is_up=True)
            log.info("store.back")

    def _note(self, *, is_up: bool) -> None:
        self.is_store_up = is_up
        self._changes += 1
