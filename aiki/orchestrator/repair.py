"""The sweep: what nobody did in time is done here, by any orchestrator, for all partitions.

Nothing depends on it while all is well. It is for the partition whose owner is
stuck, for the message that was lost with its broker, and for tidying.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from aiki.engine.commands import SendEvent
from aiki.engine.events import DispatchDoubted
from aiki.engine.queries import RunFilter
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import AikiError
from aiki.observability import get_logger
from aiki.orchestrator.services import Services
from aiki.orchestrator.timers import timer_fired

__all__ = ["RepairSweep"]

log = get_logger(__name__)

_OVERDUE_PAGE = 500
_EXPIRY_PAGE = 200

# What one sweep looks at of the runs that are queued. The next one goes on behind it, so that a long backlog costs
# each sweep the same, and is gone through in the end.
_QUEUED_PAGE = 200
_QUEUED_PAGES = 5

_LOST = "lost:"

# Several orchestrators that were started together should not sweep together.
_JITTER = 0.25


class RepairSweep:
    """Fires overdue timers, gives lost orders again and removes finished runs whose time has come."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._stats = services.stats
        self._patience = services.patience
        self._cursor: str | None = None
        """Where among the queued runs the next sweep goes on."""

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
        await self._doubt_lost()

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

    async def _doubt_lost(self) -> None:
        """Doubt dispatches whose orders are nowhere: they were lost with a queue that had no majority left, say.

        The marker goes behind the backlog of the partition, so a run that was taken meanwhile is left alone.
        """
        now = self._clock.now()
        before = now - timedelta(seconds=self._settings.lost_after)
        wanted = RunFilter(statuses=(RunStatus.QUEUED,), created_before=before)
        for _ in range(_QUEUED_PAGES):
            page = await self._patience.insist(
                lambda: self._store.find(wanted, limit=_QUEUED_PAGE, cursor=self._cursor)
            )
            await self._doubt([run for run in page.runs if _is_suspect(run, before)], now)
            self._cursor = page.cursor
            if page.cursor is None:
                break

    async def _doubt(self, suspects: Sequence[RunState], now: datetime) -> None:
        # As long as anything waits in a queue, its orders are there, and whoever is behind them has to wait.
        empty = {queue for queue in {run.queue for run in suspects} if not await self._backlog(queue)}
        lost = [run for run in suspects if run.queue in empty]
        if not lost:
            return
        await self._broker.send(
            [SendEvent(event=_doubted(run, now)) for run in lost], timeout=self._settings.send_timeout
        )
        self._stats.dispatches_doubted += len(lost)
        log.warning("sweep.orders_lost", count=len(lost), queues=sorted(empty))

    async def _backlog(self, queue: str) -> int | None:
        return await self._broker.backlog(queue, timeout=self._settings.send_timeout)


def _is_suspect(run: RunState, before: datetime) -> bool:
    """Whether the order of *run* may be lost, unless it was given again by a sweep already.

    An order that nobody can take is parked with the dead letters, and its run stays queued: giving it again and
    again would only make more letters of it.
    """
    return run.dispatched_at is not None and run.dispatched_at < before and not run.cause.startswith(_LOST)


def _doubted(run: RunState, now: datetime) -> DispatchDoubted:
    return DispatchDoubted(
        id=f"{_LOST}{run.pair.epoch}:{run.pair.dispatch_id}",
        run_id=run.run_id,
        at=now,
        incarnation=run.incarnation,
        pair=run.pair,
    )
