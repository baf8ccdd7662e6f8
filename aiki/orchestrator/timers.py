"""Timers: the moments that runs wait for, while they are near.

The store knows all of them. The near ones of the partitions that this orchestrator
owns are kept in a heap, and there is no tick: it sleeps until the next one is due.
A timer that is due changes nothing by itself; it sends an event into its partition,
which counts once, however many orchestrators send it (rule 9).
"""

import asyncio
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from aiki.engine.commands import SendEvent
from aiki.engine.events import TimerFired
from aiki.engine.journal import WaitKind
from aiki.engine.retry import RETRY_GRID_MS
from aiki.engine.state import Pair, RunState
from aiki.errors import AikiError
from aiki.observability import get_logger
from aiki.orchestrator.patience import Backoff, pause
from aiki.orchestrator.services import Services

__all__ = ["Timers", "may_be_armed", "timer_fired"]

log = get_logger(__name__)

# After an outage everything may be overdue at once. What a page of the store does not hold is loaded after
# a pause, in which the owners can work off some of what was fired.
_PAGE = 2_000
_PAGE_PAUSE = timedelta(seconds=0.5)

_WINDOW = 500  # Events in one window of confirms; the next window need not wait for the deciding of the first.


def timer_fired(run: RunState, due_at: datetime, now: datetime) -> TimerFired:
    """Write the event that says that *due_at* of *run* has come: the same id, whoever writes it and how often."""
    return TimerFired(
        id=f"timer:{run.pair.epoch}:{run.pair.dispatch_id}:{due_at.isoformat()}",
        run_id=run.run_id,
        at=now,
        incarnation=run.incarnation,
        pair=run.pair,
        due_at=due_at,
    )


def may_be_armed(run: RunState) -> bool:
    """Whether the broker may hold the next wake-up of *run* in a delay queue."""
    return any(
        wait.kind is WaitKind.RETRY and wait.due_at == run.wake_at and wait.delay_ms in RETRY_GRID_MS
        for wait in run.waits
    )


@dataclass(frozen=True, slots=True)
class _Timer:
    run: RunState
    due_at: datetime
    fires_at: datetime

    @property
    def key(self) -> tuple[Pair, datetime]:
        return (self.run.pair, self.due_at)


class Timers:
    """The near timers of the partitions that are assigned."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._clock = services.clock
        self._settings = services.settings
        self._stats = services.stats
        self._patience = services.patience
        self._partitions: frozenset[int] = frozenset()
        self._horizon = timedelta(seconds=services.settings.timer_horizon)
        self._slack = timedelta(seconds=services.settings.retry_slack)
        self._loaded_until = services.clock.now()
        self._loads_at = self._loaded_until
        self._wakes_at = self._loaded_until
        self._heap: list[tuple[datetime, int, _Timer]] = []
        self._timers: dict[str, _Timer] = {}
        self._fired: dict[str, tuple[Pair, datetime]] = {}
        self._order = count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._timers)

    def assign(self, partitions: Iterable[int]) -> None:
        """Take care of *partitions* and of no others; the timers of new ones are loaded at once."""
        wanted = frozenset(partitions)
        if wanted - self._partitions:
            self.reload()
        self._partitions = wanted

    def reload(self) -> None:
        """Look into the store at once: timers may have been set by somebody else (rule 9)."""
        self._loads_at = self._clock.now()
        self._changed.set()

    def follow(self, run: RunState, *, armed: bool) -> None:
        """Keep, move or drop the timer of *run*, which has just been stored; *armed*: the broker brings it back."""
        due_at = run.due_at
        if due_at is None or due_at >= self._loaded_until:
            self._timers.pop(run.run_id, None)
            self._fired.pop(run.run_id, None)
            return
        self._set(_Timer(run, due_at, due_at + self._slack if armed and due_at == run.wake_at else due_at))

    def _set(self, timer: _Timer) -> None:
        run_id = timer.run.run_id
        present = self._timers.get(run_id)
        if self._fired.get(run_id) == timer.key or (present is not None and present.key == timer.key):
            return
        self._timers[run_id] = timer
        heapq.heappush(self._heap, (timer.fires_at, next(self._order), timer))
        if timer.fires_at < self._wakes_at:
            self._changed.set()

    async def run(self) -> None:
        """Fire what is due and load what comes near, until cancelled."""
        backoff = Backoff(self._settings.retry_delay, self._settings.retry_delay_max)
        while True:
            self._changed.clear()
            wait = 0.0
            try:
                if self._clock.now() >= self._loads_at:
                    await self._load()
                await self._fire()
                backoff.reset()
            except AikiError as error:
                self._loads_at = self._clock.now()  # Whichever of the two failed, both may be done again.
                wait = backoff.delay()
                log.warning("timers.waiting", error=error.message)
            # Woken a hair too early by a coarse clock, it must not spin.
            await pause(self._clock, max(wait, self._seconds_left(), 0.001), unless=self._changed)

    def _seconds_left(self) -> float:
        self._forget_replaced()
        self._wakes_at = min(self._loads_at, self._heap[0][0]) if self._heap else self._loads_at
        return (self._wakes_at - self._clock.now()).total_seconds()

    async def _load(self) -> None:
        """Read the timers up to the horizon, or the first page of them."""
        before = self._clock.now() + self._horizon
        # From here on, what is stored with a timer before the new horizon is followed, and what was stored earlier is
        # found: nothing falls between.
        self._loaded_until = max(before, self._loaded_until)
        self._loads_at = self._clock.now() + self._horizon / 2
        partitions = self._partitions
        runs = await self._patience.insist(
            lambda: self._store.due(sorted(partitions), before=before, limit=_PAGE) if partitions else _nothing()
        )
        if len(runs) >= _PAGE:
            self._loads_at = self._clock.now() + _PAGE_PAUSE
        self._take_in(runs)

    def _take_in(self, runs: Sequence[RunState]) -> None:
        found = {run.run_id for run in runs}
        self._fired = {run_id: key for run_id, key in self._fired.items() if run_id in found}
        for run in runs:
            followed = self._timers.get(run.run_id)
            if run.due_at is None or (followed is not None and followed.run.revision >= run.revision):
                continue
            slack = self._slack if may_be_armed(run) and run.due_at == run.wake_at else timedelta(0)
            self._set(_Timer(run, run.due_at, run.due_at + slack))

    async def _fire(self) -> None:
        while due := self._due(self._clock.now()):
            now = self._clock.now()
            events = [SendEvent(event=timer_fired(timer.run, timer.due_at, now)) for timer in due]
            await self._broker.send(events, timeout=self._settings.send_timeout)
            self._stats.timers_fired += len(due)
            for timer in due:
                self._note_fired(timer)

    def _due(self, now: datetime) -> Sequence[_Timer]:
        """Find what is due. It stays in the heap until it was sent, so that a failure forgets nothing."""
        due: list[_Timer] = []
        self._forget_replaced()
        while self._heap and self._heap[0][0] <= now and len(due) < _WINDOW:
            due.append(heapq.heappop(self._heap)[2])
            self._forget_replaced()
        for timer in due:
            heapq.heappush(self._heap, (timer.fires_at, next(self._order), timer))
        return due

    def _note_fired(self, timer: _Timer) -> None:
        # The run may have been stored again while the event was on its way; then its timer is another one.
        if self._timers.get(timer.run.run_id) is timer:
            del self._timers[timer.run.run_id]
            self._fired[timer.run.run_id] = timer.key

    def _forget_replaced(self) -> None:
        while self._heap and self._timers.get(self._heap[0][2].run.run_id) is not self._heap[0][2]:
            heapq.heappop(self._heap)


async def _nothing() -> Sequence[RunState]:
    return ()
