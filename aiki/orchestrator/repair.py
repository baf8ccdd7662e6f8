"""The sweep: what nobody did in time is done here, by any orchestrator, for all partitions.

Nothing depends on it while all is well. It is for the partition whose owner is
stuck, for the message that was lost with its broker, and for tidying.
"""

import random
from datetime import timedelta

from aiki.engine.commands import SendEvent
from aiki.errors import AikiError
from aiki.observability import get_logger
from aiki.orchestrator.services import Services
from aiki.orchestrator.timers import timer_fired

__all__ = ["RepairSweep"]

log = get_logger(__name__)

_OVERDUE_PAGE = 500
_EXPIRY_PAGE = 200

# Several orchestrators that were started together should not sweep together.
_JITTER = 0.25


class RepairSweep:
    """Fires overdue timers of all partitions and removes finished runs whose time has come."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._stats = services.stats
        self._patience = services.patience

    async def run(self) -> None:
        """Sweep again and again until cancelled; what fails is left to the next time."""
        while True:
            await self._clock.sleep(self._settings.sweep_every * random.uniform(1 - _JITTER, 1 + _JITTER))
            try:
                await self.sweep()
            except AikiError as error:
                log.warning("sweep.failed", error=error.message)

    async def sweep(self) -> None:
        """Sweep once."""
        await self._fire_overdue()
        await self._expire()

    async def _fire_overdue(self) -> None:
        now = self._clock.now()
        before = now - timedelta(seconds=self._settings.overdue_slack)
        partitions = range(self._broker.partitions)
        runs = await self._patience.insist(lambda: self._store.due(partitions, before=before, limit=_OVERDUE_PAGE))
        if not runs:
            return
        events = [SendEvent(event=timer_fired(run, run.due_at, now)) for run in runs if run.due_at is not None]
        await self._broker.send(events, timeout=self._settings.send_timeout)
        self._stats.timers_repaired += len(events)
        log.info("sweep.overdue_fired", count=len(events))

    async def _expire(self) -> None:
        now = self._clock.now()
        removed = _EXPIRY_PAGE
        while removed == _EXPIRY_PAGE:
            removed = await self._patience.insist(lambda: self._store.expire(now=now, limit=_EXPIRY_PAGE))
            self._stats.runs_expired += removed
