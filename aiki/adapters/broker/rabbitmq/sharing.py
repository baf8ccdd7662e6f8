"""Sharing one limit among several queues.

RabbitMQ limits what a consumer may hold, and for quorum queues nothing wider. So
the limit is dealt out as credit: each consumer has a part of it. A queue that uses
up its credit is hungry; it gets what is free, and else what lies idle elsewhere, by
cancelling the consumer there and consuming anew with less. What a cancelled
consumer still holds counts until it is acknowledged: the limit is never exceeded.

Where there are more queues than the limit allows consumers, they take turns.

Nothing here talks to the broker: ``next_move`` says what to do, and the four others
note what happened.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import count

__all__ = ["Cancel", "Consume", "Sharing"]


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume *queue* under the name *tag*, holding at most *credit*."""

    tag: str
    queue: str
    credit: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the consumer *tag*."""

    tag: str


@dataclass(slots=True)
class _Consumer:
    queue: str
    credit: int
    held: int = 0
    is_live: bool = True

    @property
    def idle(self) -> int:
        return self.credit - self.held if self.is_live else 0

    @property
    def taken(self) -> int:
        return self.credit if self.is_live else self.held


class Sharing:
    """Who holds how much of one limit."""

    def __init__(self, queues: Collection[str], limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._consumers: dict[str, _Consumer] = {}
        # In the order of being served last: the first is the next to get a consumer of its own.
        self._queues = list(dict.fromkeys(queues))

    @property
    def live(self) -> list[str]:
        """The consumers that are not cancelled."""
        return [tag for tag, consumer in self._consumers.items() if consumer.is_live]

    @property
    def is_crowded(self) -> bool:
        """Whether a queue has no consumer because the others use up the limit."""
        return len(self._served()) < len(self._queues)

    def queue_of(self, tag: str) -> str:
        """Name the queue of a consumer."""
        return self._consumers[tag].queue

    def next_move(self) -> Consume | Cancel | None:
        """Tell what brings credit to where it is used; ``None`` when it is well dealt out."""
        hungry = self._hungry()
        if not hungry:
            return None
        free = self._limit - sum(consumer.taken for consumer in self._consumers.values())
        if free > 0:
            part = -(-free // len(hungry))
            return Consume(f"aiki-{next(self._numbers)}", hungry[0], part)
        return self._take_from_the_richest()

    def next_turn(self) -> Cancel | None:
        """Tell whose turn is over, where queues take turns: the consumer that was served longest."""
        return Cancel(self.live[0]) if self.is_crowded and self.live else None

    def consumed(self, move: Consume) -> None:
        """Note that the broker agreed to *move*, or is about to."""
        self._consumers[move.tag] = _Consumer(move.queue, move.credit)
        self._queues.remove(move.queue)
        self._queues.append(move.queue)

    def cancelled(self, tag: str) -> None:
        """Note that a consumer gets nothing more."""
        self._consumers[tag].is_live = False
        self._forget_if_over(tag)

    def delivered(self, tag: str) -> None:
        """Note a delivery."""
        self._consumers[tag].held += 1

    def acknowledged(self, tag: str) -> None:
        """Note an acknowledgement."""
        self._consumers[tag].held -= 1
        self._forget_if_over(tag)

    def _forget_if_over(self, tag: str) -> None:
        consumer = self._consumers[tag]
        if not consumer.is_live and consumer.held == 0:
            del self._consumers[tag]

    def _served(self) -> set[str]:
        return {consumer.queue for consumer in self._consumers.values() if consumer.is_live}

    def _hungry(self) -> list[str]:
        """Tell which queues have no idle credit, those first that were served longest ago."""
        fed = {consumer.queue for consumer in self._consumers.values() if consumer.idle > 0}
        return [queue for queue in self._queues if queue not in fed]

    def _take_from_the_richest(self) -> Cancel | None:
        """Cancel the consumer with the most idle credit; the last one stays, or two would rob each other for ever."""
        tag, consumer = max(self._consumers.items(), key=lambda item: item[1].idle, default=("", None))
        return Cancel(tag) if consumer is not None and consumer.idle > 1 else None
