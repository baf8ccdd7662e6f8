"""The sweep: what nobody did in time is done here, by any orchestrator, for all partitions.

Nothing depends on it while all is well. It is for the partition whose owner is
stuck, and for the message that was lost with its broker.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from aiki.engine.commands import Command, NotifyWorker, SendEvent, WorkerNotice
from aiki.engine.events import DispatchDoubted, RunOrphaned
from aiki.engine.queries import RunFilter
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import AikiError
from aiki.observability import get_logger
from aiki.orchestrator.patience import spread
from aiki.orchestrator.services import Services
from aiki.orchestrator.timers import timer_fired

__all__ = ["RepairSweep"]

log = get_logger(__name__)

_OVERDUE_PAGE = 500

# What one sweep looks at of the runs that are queued, and of those that are running. The next one goes on behind it,
# so that a long backlog costs each sweep the same, and is gone through in the end.
_PAGE = 200
_PAGES = 5

_LOST = "lost:"


class RepairSweep:
    """Fires overdue timers, and gives lost orders again."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._stats = services.stats
        self._patience = services.patience
        self._cursors: dict[RunStatus, str | None] = {}
        """Where among the runs of a status the next sweep goes on."""
        self._missed: frozenset[str] = frozenset()
        """The holders that were not there when all that is running was last looked through."""
        self._missing: set[str] = set()
        """The same for this time; it may take several sweeps."""

    async def run(self) -> None:
        """Sweep again and again until cancelled; what fails is left to the next time."""
        while True:
            await self._clock.sleep(spread(self._settings.sweep_every))
            try:
                await self.sweep()
            except AikiError as error:
                log.warning("sweep.failed", error=error.message)

    async def sweep(self) -> None:
        """Sweep once."""
        await self._fire_overdue()
        await self._doubt_lost()
        await self._doubt_held()

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

    async def _doubt_lost(self) -> None:
        """Doubt dispatches whose orders are nowhere: they were lost with a queue that had no majority left, say.

        The marker goes behind the backlog of the partition, so a run that was taken meanwhile is left alone. And what
        a sweep has given again already stays so: an order that nobody can take is parked with the dead letters, and its
        run stays queued; to give it again and again would only make more letters of it.
        """
        now = self._clock.now()
        async for runs in self._long_since_dispatched(RunStatus.QUEUED, now):
            await self._doubt([run for run in runs if not run.cause.startswith(_LOST)], now)

    async def _doubt_held(self) -> None:
        """Doubt that runs are executed of which nothing says so: their holders hold no lease yet, or are gone.

        While an order is not acknowledged, the broker has it, and gives it to others when its holder is lost. An order
        that the broker itself has lost is missed by nobody: the run counts as running, and no lease expires.
        """
        now = self._clock.now()
        async for runs in self._long_since_dispatched(RunStatus.RUNNING, now):
            if doubtful := [run for run in runs if run.lease_until is None and run.holder is not None]:
                await self._ask_holders(doubtful, now)
        if self._cursors[RunStatus.RUNNING] is None:
            self._missed, self._missing = frozenset(self._missing), set()

    async def _long_since_dispatched(self, status: RunStatus, now: datetime) -> AsyncIterator[Sequence[RunState]]:
        before = now - timedelta(seconds=self._settings.lost_after)
        wanted = RunFilter(statuses=(status,), created_before=before)
        for _ in range(_PAGES):
            page = await self._patience.insist(
                lambda: self._store.find(wanted, limit=_PAGE, cursor=self._cursors.get(status))
            )
            yield [run for run in page.runs if run.dispatched_at is not None and run.dispatched_at < before]
            self._cursors[status] = page.cursor
            if page.cursor is None:
                break

    async def _ask_holders(self, runs: Sequence[RunState], now: datetime) -> None:
        """Ask who is there whether they hold what they should, and speak for who is gone.

        Nobody is gone who is missed for the first time: while the store was away, say, nobody could say to be there.
        """
        workers = await self._patience.insist(lambda: self._store.present("worker", now=now))
        present = {worker.id for worker in workers}
        self._missing.update(run.holder for run in runs if run.holder is not None and run.holder not in present)
        asked = [_question(run) for run in runs if run.holder in present]
        gone = [_orphaned(run, now) for run in runs if run.holder in self._missed - present]
        commands: list[Command] = [*asked, *(SendEvent(event=event) for event in gone)]
        if commands:
            await self._broker.send(commands, timeout=self._settings.send_timeout)
        self._stats.holders_asked += len(asked)
        self._stats.dispatches_doubted += len(gone)
        if gone:
            log.warning("sweep.holders_gone", count=len(gone), workers=sorted({event.worker for event in gone}))

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


def _question(run: RunState) -> NotifyWorker:
    return NotifyWorker(
        worker=run.holder or "",
        run_id=run.run_id,
        pair=run.pair,
        notice=WorkerNotice.DOUBTED,
        incarnation=run.incarnation,
    )


def _orphaned(run: RunState, now: datetime) -> RunOrphaned:
    """Say for a holder that is gone what whoever is given its order would have said."""
    return RunOrphaned(
        id=f"gone:{run.pair.epoch}:{run.pair.dispatch_id}",
        run_id=run.run_id,
        at=now,
        incarnation=run.incarnation,
        pair=run.pair,
        worker=run.holder or "",
    )


def _doubted(run: RunState, now: datetime) -> DispatchDoubted:
    return DispatchDoubted(
        id=f"{_LOST}{run.pair.epoch}:{run.pair.dispatch_id}",
        run_id=run.run_id,
        at=now,
        incarnation=run.incarnation,
        pair=run.pair,
    )
