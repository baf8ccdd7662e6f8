"""Committing for all partitions at once: what comes while a write is under way goes with the next one.

Alone, a change is written at once; under load, one write carries what all
partitions have decided meanwhile. Nobody waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aiki.errors import StoreUnavailableError
from aiki.orchestrator.stats import Stats
from aiki.ports.store import RunChange, Store

__all__ = ["Committer"]


@dataclass(frozen=True, slots=True)
class _Submission:
    changes: Sequence[RunChange]
    done: "asyncio.Future[Collection[str]]"


class Committer:
    """Commits changes in groups. One write is under way at a time, of at most *changes_max* runs."""

    def __init__(self, store: Store, stats: Stats, *, changes_max: int) -> None:
        self._store = store
        self._stats = stats
        self._changes_max = changes_max
        self._waiting: deque[_Submission] = deque()
        self._arrived = asyncio.Event()

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes* and tell whose was stale, as the store does.

        Raises what the store raises, and never because of somebody else's changes.
        """
        submission = _Submission(changes, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self._arrived.set()
        return await submission.done

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._arrived.wait()
            await self._write(self._next_group())
            if not self._waiting:
                self._arrived.clear()

    def _next_group(self) -> list[_Submission]:
        group: list[_Submission] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].changes) <= self._changes_max):
            submission = self._waiting.popleft()
            if submission.done.cancelled():
                continue  # Whoever wanted this has been stopped; its events come back.
            group.append(submission)
            size += len(submission.changes)
        return group

    async def _write(self, group: Sequence[_Submission]) -> None:
        if not group:
            return
        try:
            stale = await self._store.commit([change for submission in group for change in submission.changes])
        except StoreUnavailableError as error:
            _fail(group, error)
        except Exception as error:  # noqa: BLE001 - Handed to whoever submitted, or to the guilty one of several.
            if len(group) == 1:
                _fail(group, error)
            else:
                # One of them cannot be written. Each on its own, only the guilty one fails; what was
                # kept already may be given again without harm.
                for submission in group:
                    await self._write((submission,))
        else:
            self._stats.commits += 1
            for submission in group:
                if not submission.done.done():
                    submission.done.set_result(stale)


def _fail(group: Sequence[_Submission], error: Exception) -> None:
    for submission in group:
        if not submission.done.done():
            submission.done.set_exception(error)
