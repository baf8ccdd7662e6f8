"""Ids for new runs, chosen so that runs which are asked for together travel together.

A run's id says which partition it belongs to. With ids that are all random, the runs
of one client spread over all partitions at any time, and so does what is said of them: many
messages that carry little. So a client stays with one partition for a while, as long as that
fills messages, and goes on to the next one (docs/decisions/0105).
"""

from datetime import datetime, timedelta
from os import urandom

from aiki.engine.ids import run_id_within

__all__ = ["RunIds"]

# Enough for full messages; few enough that a burst of thousands of runs is spread evenly.
RUNS_TOGETHER = 200

# Whoever asks for few runs loses nothing by being somewhere else soon.
TOGETHER = timedelta(seconds=1)


class RunIds:
    """Makes the ids of the runs that one client asks for without a key."""

    def __init__(self) -> None:
        # Clients that start together begin apart.
        self._turn = urandom(1)[0]
        self._left = RUNS_TOGETHER
        self._until: datetime | None = None

    def next(self, now: datetime, partitions: int) -> str:
        """Make an id that nobody has made before, for a run that is asked for *now* where there are *partitions*."""
        if self._left == 0 or self._until is None or not self._until - TOGETHER <= now < self._until:
            self._turn += 1
            self._left = RUNS_TOGETHER
            self._until = now + TOGETHER
        self._left -= 1
        return run_id_within(self._turn % partitions, partitions, now, urandom(10))
