"""Dead letters: from the queue where they are safe to the store where they can be listed."""

from collections.abc import Sequence

from aiki.engine.commands import DeadLetter
from aiki.observability import get_logger
from aiki.orchestrator.services import Services
from aiki.ports.broker import Delivery, Subscription

__all__ = ["LetterKeeper"]

log = get_logger(__name__)

_PREFETCH = 50  # A letter quotes a whole message, up to several mebibytes.


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
