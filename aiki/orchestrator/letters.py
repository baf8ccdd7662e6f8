"""Dead letters: from the queue where they are safe to the store where they can be listed, and again after a loss."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from aiki.engine.commands import Command, DeadLetter, ParkDeadLetter, SendEvent
from aiki.engine.decision import Moment
from aiki.engine.ending import outcome
from aiki.engine.events import RetryRequested
from aiki.engine.ids import letter_id_of
from aiki.engine.queries import RunFilter, StoredDeadLetter
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.observability import get_logger
from aiki.orchestrator.services import Services
from aiki.ports.broker import Delivery, OrchestratorBroker, Subscription
from aiki.ports.store import Store

__all__ = ["LetterKeeper", "redrive_of", "send_letters_again"]

log = get_logger(__name__)

_PREFETCH = 50  # A letter quotes a whole message, up to several mebibytes.

# Buried runs that are looked at together, each with a read of its letter.
_PAGE = 50


class LetterKeeper:
    """Stores dead letters. One that is seen twice is stored once, so it may be acknowledged late or never."""

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._store = services.store
        self._patience = services.patience
        self._stats = services.stats

    async def subscribe(self) -> Subscription[DeadLetter]:
        """Take dead letters."""
        return await self._broker.consume_dead_letters(prefetch=_PREFETCH)

    async def handle(self, deliveries: Sequence[Delivery[DeadLetter]]) -> None:
        """Store what has arrived."""
        letters = [delivery.body for delivery in deliveries]
        await self._patience.insist(lambda: self._store.add_dead_letters(letters))
        self._stats.dead_letters_stored += len(letters)
        for letter in letters:
            log.warning("dead_letter.stored", letter_id=letter.id, reason=letter.reason, origin=letter.origin)


def redrive_of(stored: StoredDeadLetter, run_id: str, now: datetime) -> RetryRequested:
    """Let the run of a letter go on. However often that is said of one parking, it counts once."""
    return RetryRequested(id=f"redrive:{stored.letter.id}:{stored.times}", run_id=run_id, at=now)


async def send_letters_again(
    store: Store,
    broker: OrchestratorBroker,
    is_wanted: Callable[[RunState], bool],
    moment: Moment,
    *,
    timeout: float,
) -> int:
    """Send what is missing of the letters of buried runs, and tell how much that was.

    A buried run is final and waits for nothing but a person, who finds it by its letter; and a redrive is noted
    before its run has heard of it. Either may have been in a queue that is gone. If it was not, it counts once.

    Raises:
        StoreUnavailableError, BrokerError: it got only so far; calling it again is harmless.
    """
    buried, cursor, sent = RunFilter(statuses=(RunStatus.DEAD_LETTERED,)), None, 0
    while True:
        page = await store.find(buried, limit=_PAGE, cursor=cursor)
        runs = [run for run in page.runs if is_wanted(run)]
        letters = await asyncio.gather(*(store.dead_letter(_letter_of(run)) for run in runs))
        commands = [
            command for run, stored in zip(runs, letters, strict=True) for command in _missing_of(run, stored, moment)
        ]
        if commands:
            await broker.send(commands, timeout=timeout)
        sent += len(commands)
        if page.cursor is None:
            return sent
        cursor = page.cursor


def _letter_of(run: RunState) -> str:
    return letter_id_of(run.run_id, run.incarnation, run.pair.epoch)


def _missing_of(run: RunState, stored: StoredDeadLetter | None, moment: Moment) -> Sequence[Command]:
    if stored is None:
        return [command for command in outcome(run, moment) if isinstance(command, ParkDeadLetter)]
    if stored.state == "redriven":
        return [SendEvent(event=redrive_of(stored, run.run_id, moment.now))]
    return ()
