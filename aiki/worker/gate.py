"""The gate: many executions side by side, or a single one alone.

A run under suspicion of killing its workers executes with nothing beside it
(rule 4), so that its neighbours are not blamed for what it does.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Gate"]


class Gate:
    """Lets many in who share, or one who does not. Who wants to be alone is not overtaken."""

    def __init__(self) -> None:
        self._inside = 0
        self._alone = False
        self._line: deque[tuple[bool, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Be inside together with others who share."""
        await self.enter(alone=False)
        try:
            yield
        finally:
            self.leave(alone=False)

    def is_open(self, *, alone: bool) -> bool:
        """Whether ``enter`` would let one in at once."""
        return not self._line and self._may_enter(alone=alone)

    async def enter(self, *, alone: bool) -> None:
        """Be inside: with others, or *alone*; then those who are there finish first, those who come later wait.

        Whoever was let in has to ``leave``.
        """
        if self.is_open(alone=alone):
            self._admit(alone=alone)
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (alone, admitted)
        self._line.append(place)
        try:
            await admitted
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                self._let_in()
            elif admitted.done() and not admitted.cancelled():  # Let in and cancelled in the same moment.
                self.leave(alone=alone)
            raise

    def leave(self, *, alone: bool) -> None:
        """Be inside no more, after an ``enter`` that was *alone* or not."""
        self._alone = self._alone and not alone
        self._inside -= 1
        self._let_in()

    def _may_enter(self, *, alone: bool) -> bool:
        return not self._alone and (self._inside == 0 or not alone)

    def _admit(self, *, alone: bool) -> None:
        self._inside += 1
        self._alone = alone

    def _let_in(self) -> None:
        while self._line:
            alone, admitted = self._line[0]
            if not admitted.done() and not self._may_enter(alone=alone):
                return
            self._line.popleft()
            if not admitted.done():
                self._admit(alone=alone)
                admitted.set_result(None)
