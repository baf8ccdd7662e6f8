"""Handles: what an application holds of a run.

A handle is cheap: waiting for a thousand of them costs one subscription. It can
be made from the id of a run at any time, in any process.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from aiki.engine.events import (
    CancelRequested,
    ClientEvent,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SignalSent,
    WakeRequested,
)
from aiki.engine.journal import JournalEntry
from aiki.engine.payload import NULL, Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import (
    CompletionTimeoutError,
    QueryTimeoutError,
    RunCancelledError,
    RunDeadLetteredError,
    RunEndedError,
    RunFailedError,
    RunNotFoundError,
    RunNotRetryableError,
    RunTimeoutError,
    type_name,
)
from aiki.sdk.names import signal_name
from aiki.sdk.options import Duration, seconds
from aiki.sdk.outcomes import Interest, Outcome
from aiki.sdk.values import dump_anything

if TYPE_CHECKING:
    from aiki.sdk.connection import Connection

__all__ = ["Handle"]

R = TypeVar("R")

# How soon a run that is followed and not stored yet is looked for again.
LOOK_AGAIN_SECONDS = 0.2

_ENDED: dict[RunStatus, type[RunEndedError]] = {
    RunStatus.FAILED: RunFailedError,
    RunStatus.CANCELLED: RunCancelledError,
    RunStatus.DEAD_LETTERED: RunDeadLetteredError,
}


class Handle(Generic[R]):
    """One run: how it stands, how it ends, and what can be said to it."""

    def __init__(
        self,
        connection: "Connection",
        interest: Interest,
        *,
        decode: Callable[[Payload], R],
        workflow: str | None = None,
        own: bool = False,
    ) -> None:
        """*own*: this client started the run, so it is there even if nobody has stored it yet."""
        self._connection = connection
        self._interest = interest
        self._decode = decode
        self._own = own
        self.workflow = workflow

    @property
    def id(self) -> str:
        """The id of the run."""
        return self._interest.run_id

    def __repr__(self) -> str:
        return f"<Handle of run {self.id}{f' of {self.workflow}' if self.workflow else ''}>"

    async def get(self) -> RunState:
        """Read everything that is known of the run.

        Raises:
            RunNotFoundError: there is no such run (or it is not stored yet).
            QueryTimeoutError: no orchestrator answered.
        """
        run = await self._connection.questions.run_patiently(self.id)
        if run is None:
            raise RunNotFoundError(self.id)
        self._interest.known = True
        return run

    async def status(self) -> RunStatus:
        """Tell where the run stands. Raises as ``get``; a run of ours that is not stored yet counts as queued."""
        run = await self._found_so_far()
        return RunStatus.QUEUED if run is None else run.status

    async def wait_for_completion(self, timeout: Duration | None = None) -> R:
        """Wait until the run is over, and give its result. It is pushed; a lost connection is made up for.

        Raises:
            RunFailedError, RunCancelledError, RunDeadLetteredError: it ended without a result;
                RunTimeoutError, which is a RunFailedError: because its own time was over.
            RunNotFoundError: there is no such run.
            CompletionTimeoutError: it was not over in time; it goes on all the same.
        """
        limit = seconds("timeout", timeout, zero=True)
        try:
            async with asyncio.timeout(limit):
                outcome = await self._connection.listener.outcome(self._interest, addressed=self._own)
        except TimeoutError:
            raise CompletionTimeoutError(self.id, timeout=limit or 0) from None
        if outcome is None:
            raise RunNotFoundError(self.id)
        return self._result_of(outcome)

    async def watch(self) -> AsyncIterator[RunState]:
        """Follow the run: how it stands now, and then whenever it was heard to have moved, until it is over."""
        listener = self._connection.listener
        await listener.start()
        async with listener.watching(self._interest):
            last: RunState | None = None
            while last is None or not last.status.is_final:
                changes = self._interest.changes
                run = await self._found_so_far()
                if run is not None and run != last:
                    last = run
                    yield run
                    continue
                # Nobody says when a run is stored: until then, look again.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS if last is None else None):
                        await self._interest.change_after(changes)

    async def journal(self) -> tuple[JournalEntry, ...]:
        """Read all that the run has learnt so far. Raises as ``get``."""
        entries = tuple([entry async for entry in self._connection.questions.journal(self.id)])
        if not entries:
            await self._found_so_far()  # Nothing learnt yet, or no such run?
        return entries

    async def cancel(self) -> None:
        """Ask the run to stop: ``asyncio.CancelledError`` is raised where it waits, so that it can clean up.

        This and what follows returns once the broker keeps the request, which counts once.

        Raises:
            RunNotFoundError: there is no such run.
            EnqueueTimeoutError: the broker did not confirm it in time.
        """
        await self._say(CancelRequested(**self._facts()), "cancellation")

    async def pause(self) -> None:
        """Ask the run to start nothing new until it is resumed. Raises as ``cancel``."""
        await self._say(PauseRequested(**self._facts()), "pause")

    async def resume(self) -> None:
        """Let the paused run go on. Raises as ``cancel``."""
        await self._say(ResumeRequested(**self._facts()), "resumption")

    async def wake(self) -> None:
        """Let the run go on now: its nearest sleep, timer or retry counts as due. Raises as ``cancel``."""
        await self._say(WakeRequested(**self._facts()), "wake-up")

    async def send(self, signal: str, payload: Any = None) -> None:
        """Send the run a signal with anything that can be written as JSON. Raises as ``cancel``.

        Raises:
            InvalidNameError: *signal* cannot be the name of a signal, so that no workflow waits for it.
            PayloadError, PayloadTooLargeError: *payload* cannot be written, or is too long.
        """
        name = signal_name(signal)
        text = dump_anything(payload, what=f"payload of signal {signal!r}")
        await self._say(SignalSent(**self._facts(), name=name, payload=text), f"signal {signal!r}")

    async def retry(self) -> None:
        """Let a run that failed, was cancelled or dead-lettered go on from where it ended. Raises as ``cancel``.

        Raises:
            RunNotRetryableError: it is not over, or completed.
        """
        run = await self.get()
        if run.status not in _ENDED:
            raise RunNotRetryableError(self.id, run.status)
        await self._say(RetryRequested(**self._facts()), "retry")
        self._interest.reopen(run.finished_at)

    async def _found_so_far(self) -> RunState | None:
        if self._own and not self._interest.known:
            return await self._connection.questions.run(self.id)
        return await self.get()

    def _facts(self) -> dict[str, Any]:
        return {"id": uuid4().hex, "run_id": self.id, "at": self._connection.clock.now()}

    async def _say(self, event: ClientEvent, what: str) -> None:
        if not (self._own or self._interest.known):
            await self._look_whether_it_exists()
        await self._connection.tell(event, f"the {what} of run {self.id}")

    async def _look_whether_it_exists(self) -> None:
        try:
            await self.get()
        except QueryTimeoutError:
            # No orchestrator is there to tell. What is said waits for one, like everything else.
            return

    def _result_of(self, outcome: Outcome) -> R:
        error = _ENDED.get(outcome.status)
        if error is not None:
            if outcome.failure is not None and outcome.failure.type == type_name(RunTimeoutError):
                error = RunTimeoutError
            raise error(self.id, outcome.workflow, outcome.failure)
        return self._decode(NULL if outcome.result is None else outcome.result)
