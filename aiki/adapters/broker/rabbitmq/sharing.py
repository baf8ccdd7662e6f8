"""Sharing one limit among several queues.

RabbitMQ limits what a consumer may hold, and for quorum queues nothing wider. So
the limit is dealt out in places: each is a consumer of its own, which holds one
message at most. A queue whose places are all taken is hungry; it gets what is
free, and else an idle place of a queue that has several.

**A place that holds something is never cancelled.** What a cancelled consumer holds
is not given back when its connection is lost with a node of RabbitMQ: not before
the queue has another leader, which may be never (docs/decisions/0019). So a place
is cancelled while it is idle, or in one go with the acknowledgement of what it holds.

Where there are more queues than places, they take turns.

Nothing here talks to the broker: ``next_move`` says what to do, and the others note
what happened.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, count

__all__ = ["Cancel", "Consume", "Sharing"]


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume *queue* under the name *tag*, holding one message at most."""

    tag: str
    queue: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the consumer *tag*."""

    tag: str


class _Stage(IntEnum):
    SERVING = 0
    LEAVING = 1  # To be cancelled as soon as it holds nothing.
    CALLED_OFF = 2  # Being cancelled: what still comes for it is to be given back.
    GONE = 3  # The broker gives it nothing more.


@dataclass(slots=True)
class _Place:
    queue: str
    is_spare: bool = False
    """It was made because others were doubted, and nothing has come for it."""
    is_held: bool = False
    is_watched: bool = False
    """Nothing has come since it was last looked at."""
    stage: _Stage = _Stage.SERVING


class Sharing:
    """Who has how many places of one limit."""

    def __init__(self, queues: Collection[str], limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._places: dict[str, _Place] = {}
        # In the order of being served last: the first is the next to get a place.
        self._queues = list(dict.fromkeys(queues))
        self._idle: dict[str, dict[str, None]] = {queue: {} for queue in self._queues}
        self._served: Counter[str] = Counter()
        """How many places of a queue the broker serves."""
        self._doubted: dict[str, dict[str, None]] = {queue: {} for queue in self._queues}
        """Places that seem idle, and may hold what was lost on its way: no queue relies on them."""
        self._leaving: dict[str, None] = {}
        """The places that are to be cancelled at once."""

    @property
    def is_crowded(self) -> bool:
        """Whether a queue has no place because the others use up the limit."""
        return any(not self._served[queue] for queue in self._queues)

    def queue_of(self, tag: str) -> str:
        """Name the queue of a place."""
        return self._places[tag].queue

    def is_leaving(self, tag: str) -> bool:
        """Tell whether a place is to be cancelled together with the acknowledgement of what it holds."""
        return self._places[tag].stage > _Stage.SERVING

    def next_move(self) -> Consume | Cancel | None:
        """Tell what brings places to where they are used; ``None`` when they are well dealt out."""
        hungry = next((queue for queue in self._queues if not self._idle[queue]), None)
        if hungry is not None and len(self._places) < self._limit:
            return Consume(f"aiki-{next(self._numbers)}", hungry)
        if self._leaving:
            return Cancel(next(iter(self._leaving)))
        if hungry is None:
            return None
        doubted = next(chain(self._doubted[hungry], *self._doubted.values()), None)
        if doubted is not None:
            return Cancel(doubted)
        # The last idle place stays, or two would rob each other for ever.
        rich = max(self._queues, key=lambda queue: len(self._idle[queue]))
        return Cancel(next(reversed(self._idle[rich]))) if len(self._idle[rich]) > 1 else None

    def end_turn(self) -> None:
        """Have the place that was served longest go to another queue, now or when it is acknowledged."""
        tag = next((tag for tag, place in self._places.items() if place.stage is _Stage.SERVING), None)
        if self.is_crowded and tag is not None:
            self._leave(tag)

    def doubt_idle(self) -> bool:
        """Rely no more on places to which nothing came since the last time; tells whether there was any.

        They stay as long as there is room: what the broker believes to be with them is safe only with a live consumer.
        One that was made for that reason is not doubted itself before it was used.
        """
        found = False
        for queue, tags in self._idle.items():
            for tag in tuple(tags):
                place = self._places[tag]
                if place.is_watched and not place.is_spare:
                    del tags[tag]
                    self._doubted[queue][tag] = None
                    found = True
                place.is_watched = True
        return found

    def end(self) -> None:
        """Have all places go, now or when they are acknowledged, and make no new ones."""
        self._queues.clear()
        for tag, place in self._places.items():
            if place.stage is _Stage.SERVING:
                self._leave(tag)

    def consumed(self, move: Consume) -> None:
        """Note that the broker agreed to *move*, or is about to."""
        self._places[move.tag] = _Place(move.queue, is_spare=bool(self._doubted[move.queue]))
        self._idle[move.queue][move.tag] = None
        self._served[move.queue] += 1
        self._queues.remove(move.queue)
        self._queues.append(move.queue)

    def called_off(self, tag: str) -> None:
        """Note that the broker is told to give a place nothing more."""
        self._move_on(tag, _Stage.CALLED_OFF)

    def cancelled(self, tag: str) -> None:
        """Note that a place gets nothing more."""
        self._move_on(tag, _Stage.GONE)
        self._forget_if_over(tag)

    def delivered(self, tag: str) -> bool:
        """Note a delivery; tells whether it may be kept. It is to be given back where its place is being cancelled."""
        place = self._places[tag]
        place.is_held = True
        place.is_spare = place.is_watched = False
        self._take_out(tag)
        self._leaving.pop(tag, None)
        return place.stage < _Stage.CALLED_OFF

    def acknowledged(self, tag: str) -> None:
        """Note that what a place held was acknowledged, or given back."""
        place = self._places[tag]
        place.is_held = False
        if place.stage is _Stage.SERVING:
            self._idle[place.queue][tag] = None
        elif place.stage is _Stage.LEAVING:
            self._leaving[tag] = None
        self._forget_if_over(tag)

    def _leave(self, tag: str) -> None:
        place = self._places[tag]
        place.stage = _Stage.LEAVING
        self._take_out(tag)
        if not place.is_held:
            self._leaving[tag] = None

    def _take_out(self, tag: str) -> None:
        """Count a place no more as one that waits for what may come."""
        queue = self._places[tag].queue
        self._idle[queue].pop(tag, None)
        self._doubted[queue].pop(tag, None)

    def _move_on(self, tag: str, stage: _Stage) -> None:
        place = self._places[tag]
        if place.stage < _Stage.CALLED_OFF:
            self._served[place.queue] -= 1
        place.stage = max(place.stage, stage)
        self._take_out(tag)
        self._leaving.pop(tag, None)

    def _forget_if_over(self, tag: str) -> None:
        place = self._places[tag]
        if place.stage is _Stage.GONE and not place.is_held:
            del self._places[tag]
