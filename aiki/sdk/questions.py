"""Questions to the orchestrators, and their answers as what was asked for."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import TypeVar

from aiki.engine.journal import JournalEntry
from aiki.engine.queries import Answer, GetJournal, GetRun, JournalPage, Query, QueryFailed, RunFound
from aiki.engine.state import RunState
from aiki.errors import BrokerUnavailableError, QueryFailedError, QueryTimeoutError
from aiki.ports.broker import ClientBroker

__all__ = ["Questions"]

A = TypeVar("A", bound=Answer)

# A question that the connection lost is asked again after at most this long, until its time is over.
PAUSE_SECONDS = 0.2

# A run that was enqueued elsewhere a moment ago may not be stored yet: look again after these before saying no.
LOOK_AGAIN_AFTER = (0.1, 0.4)


class Questions:
    """Asks whichever orchestrator answers."""

    def __init__(self, broker: ClientBroker, *, timeout: float) -> None:
        self._broker = broker
        self.timeout = timeout

    async def ask(self, query: Query, kind: type[A], *, timeout: float | None = None) -> A:
        """Ask, and ask again if the connection is lost meanwhile.

        Raises:
            BrokerUnavailableError, QueryTimeoutError: there is no answer in time.
            QueryFailedError: an orchestrator could not do it.
        """
        answer = await self.answer_to(query, timeout=timeout)
        if isinstance(answer, kind):
            return answer
        reason = answer.reason if isinstance(answer, QueryFailed) else f"it answered with {answer.type}"
        raise QueryFailedError(query.type, reason)

    async def run(self, run_id: str) -> RunState | None:
        """Read a run."""
        found = await self.ask(GetRun(run_id=run_id), RunFound)
        return found.run

    async def run_patiently(self, run_id: str) -> RunState | None:
        """Read a run that may have been enqueued a moment ago."""
        run = await self.run(run_id)
        for pause in LOOK_AGAIN_AFTER:
            if run is not None:
                break
            await asyncio.sleep(pause)
            run = await self.run(run_id)
        return run

    async def journal(self, run_id: str) -> AsyncIterator[JournalEntry]:
        """Read the journal of a run, page by page."""
        after_seq, complete = 0, False
        while not complete:
            page = await self.ask(GetJournal(run_id=run_id, after_seq=after_seq), JournalPage)
            for entry in page.entries:
                yield entry
            after_seq = page.entries[-1].seq if page.entries else after_seq
            complete = page.complete or not page.entries

    async def answer_to(self, query: Query, *, timeout: float | None = None) -> Answer:
        """Ask, whatever the answer may be. Raises as ``ask``, except for an orchestrator that could not do it."""
        loop = asyncio.get_running_loop()
        limit = self.timeout if timeout is None else timeout
        deadline = loop.time() + limit
        while (remaining := deadline - loop.time()) > 0:
            try:
                return await self._broker.ask(query, timeout=remaining)
            except BrokerUnavailableError:
                pause = random.uniform(0, PAUSE_SECONDS)
                if loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
        raise QueryTimeoutError(timeout=limit)
