"""Expiry: finished runs are removed when their time has come, by any orchestrator, for all partitions.

Nobody waits for it. So each orchestrator does it for no more than half of its time, however many
runs have expired at once.
"""

from datetime import datetime

from aiki.errors import AikiError
from aiki.observability import get_logger
from aiki.orchestrator.patience import spread
from aiki.orchestrator.services import Services

__all__ = ["Expiry"]

log = get_logger(__name__)

_PAGE = 200


class Expiry:
    """Removes finished runs, as often as the sweep repairs."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._clock = services.clock
        self._every = services.settings.sweep_every
        self._stats = services.stats
        self._patience = services.patience

    async def run(self) -> None:
        """Remove what has expired, again and again until cancelled; what fails is left to the next time."""
        while True:
            await self._clock.sleep(spread(self._every))
            try:
                await self.remove_expired()
            except AikiError as error:
                log.warning("expiry.failed", error=error.message)

    async def remove_expired(self) -> None:
        """Remove all runs that have expired by now, and rest after each page of them for as long as it took.

        Raises:
            AikiError: the store refuses to.
        """
        now = self._clock.now()
        while True:
            # Of a full page, another orchestrator may have removed some before: only an empty one is the end.
            removed, taken = await self._patience.insist(lambda: self._remove_page(now))
            if not removed:
                return
            self._stats.runs_expired += removed
            await self._clock.sleep(taken)

    async def _remove_page(self, now: datetime) -> tuple[int, float]:
        """Remove some runs; tell how many, and how many seconds that took."""
        began = self._clock.monotonic()
        removed = await self._store.expire(now=now, limit=_PAGE)
        return removed, self._clock.monotonic() - began
