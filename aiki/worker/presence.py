"""Saying that a worker is there, and what it serves, for people who look. Nothing depends on it."""

from collections.abc import Callable
from dataclasses import replace

from aiki.engine.queries import PresenceNoted, ReportPresence
from aiki.errors import BrokerError, QueryFailedError
from aiki.observability.logs import get_logger
from aiki.ports.clock import Clock
from aiki.sdk.questions import Questions

__all__ = ["Presence"]

log = get_logger(__name__)

EVERY_SECONDS = 20.0

# Two reports may be lost before a worker that is there counts as gone.
HOLDS_SECONDS = 65.0

# A report is never worth waiting for.
PATIENCE_SECONDS = 5.0
LEAVING_SECONDS = 1.0


class Presence:
    """Reports a worker's presence, at its best."""

    def __init__(self, questions: Questions, clock: Clock, facts: Callable[[], ReportPresence]) -> None:
        """*facts* makes a report; how long it holds is ours to say."""
        self._questions = questions
        self._clock = clock
        self._facts = facts
        self._was_noted = False

    async def keep(self) -> None:
        """Report for ever."""
        while True:
            self._was_noted = await self._report(HOLDS_SECONDS, patience=PATIENCE_SECONDS) or self._was_noted
            await self._clock.sleep(EVERY_SECONDS)

    async def leave(self) -> None:
        """Say that the worker goes, if anybody knows that it was there."""
        if self._was_noted:
            await self._report(0, patience=LEAVING_SECONDS)

    async def _report(self, seconds: float, *, patience: float) -> bool:
        report = replace(self._facts(), seconds=seconds)
        try:
            await self._questions.ask(report, PresenceNoted, timeout=patience)
        except (BrokerError, QueryFailedError) as error:
            log.debug("worker.presence_not_noted", worker=report.worker, error=error.message)
            return False
        return True
