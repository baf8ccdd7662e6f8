"""What the worker is for what it executes."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aiki.engine.commands import ExecuteRun
from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query, QueryFailed
from aiki.errors import AikiError, BrokerError, RunAbandonedError
from aiki.observability.logs import get_logger
from aiki.ports.clock import Clock
from aiki.worker.host import Host
from aiki.worker.surroundings import Surroundings

__all__ = ["RunHost", "WorkerHost"]

# A question without an answer is asked again after at most this long.
PAUSE_SECONDS = 2.0

# Minutes of trouble with the store. What lasts longer is another trouble, and its text belongs into the log of errors.
REFUSALS_MAX = 200

log = get_logger(__name__)


class WorkerHost(Host):
    """The worker, for whatever it executes."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    @property
    def worker(self) -> str:
        """The id of the worker."""
        return self._surroundings.worker

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._surroundings.clock

    @property
    def max_in_place_wait(self) -> float:
        """Seconds that a run may wait while it is held."""
        return self._surroundings.settings.max_in_place_wait

    @property
    def grace(self) -> float:
        """Seconds that attempts under way get when the run is handed back."""
        return self._surroundings.grace

    def publish(self, events: Sequence[Event]) -> Awaitable[None]:
        """Put *events* in line now; what this returns is done once they are confirmed."""
        try:
            return self._surroundings.publisher.submit(events)
        except AikiError as error:
            return _failed(error)

    async def ask(self, query: Query) -> Answer:
        """Ask an orchestrator."""
        return await self._surroundings.questions.answer_to(query)

    async def run_in_thread(self, function: Callable[[], Any]) -> Any:
        """Call *function* in a thread of the worker."""
        return await self._surroundings.threads.call(function)

    def new_id(self) -> str:
        """Make an id that nobody has made before."""
        return self._surroundings.new_id()


class RunHost(WorkerHost):
    """Lets one dispatch of a run speak, until it is abandoned."""

    def __init__(self, surroundings: Surroundings, command: ExecuteRun) -> None:
        super().__init__(surroundings)
        self._command = command
        self._abandoned = asyncio.Event()

    def publish(self, events: Sequence[Event]) -> Awaitable[None]:
        """Put *events* in line, unless the run was abandoned."""
        if self._abandoned.is_set():
            return _failed(RunAbandonedError(self._command.run_id))
        return super().publish(events)

    async def ask(self, query: Query) -> Answer:
        """Ask until somebody answers, or the run is abandoned. That the store is away passes, too."""
        refusals = 0
        while not self._abandoned.is_set():
            with suppress(BrokerError):
                answer = await super().ask(query)
                refusals += 1
                if not isinstance(answer, QueryFailed) or refusals >= REFUSALS_MAX:
                    return answer
                log.warning("run.question_failed", run_id=self._command.run_id, reason=answer.reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0, PAUSE_SECONDS)):
                    await self._abandoned.wait()
        raise RunAbandonedError(self._command.run_id)

    def abandon(self) -> None:
        """Say nothing more for this dispatch, and drop what was not sent yet."""
        self._abandoned.set()
        self._surroundings.publisher.forget(self._command.run_id, self._command.pair)


def _failed(error: AikiError) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    future.exception()  # Who does not await it has other means to know.
    return future
