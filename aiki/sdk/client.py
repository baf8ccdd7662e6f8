"""The client: how an application starts runs, finds them again and talks to them.

It speaks to the broker only. What it states is confirmed by the broker before a
call returns, and counts once however often the network made it be sent.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import uuid4

from aiki.codec.schema import ID_CHARACTERS_MAX
from aiki.engine.payload import Payload, load_payload
from aiki.engine.queries import (
    DeadLetterFound,
    DeadLetterPage,
    DiscardDeadLetter,
    FindRuns,
    GetDeadLetter,
    GetStats,
    ListDeadLetters,
    RedriveDeadLetter,
    RunFilter,
    RunPage,
    Stats,
    StoredDeadLetter,
)
from aiki.engine.state import RunState
from aiki.errors import AikiError, BatchNotEnqueuedError, DeadLetterNotFoundError, InvalidOptionError
from aiki.ports.broker import ClientBroker
from aiki.ports.clock import Clock
from aiki.sdk.connection import Connection
from aiki.sdk.handle import Handle
from aiki.sdk.names import version_name, workflow_name
from aiki.sdk.options import Duration, WorkflowOptions, check_text, moment, seconds
from aiki.sdk.starting import RunStarter, Target
from aiki.sdk.values import dump_anything
from aiki.sdk.workflow import Workflow

__all__ = ["Client"]

R = TypeVar("R")

# What a thousand runs of one call add to the default timeout.
SECONDS_PER_THOUSAND = 2.0

_DEFAULTS = WorkflowOptions()


class Client:
    """An application's way to the engine. Use it as ``async with``; one per process and event loop is enough.

    It may be used by any number of tasks at the same time. A lost connection is made again by itself;
    meanwhile calls wait, up to their timeout.
    """

    def __init__(
        self,
        broker: ClientBroker,
        *,
        clock: Clock,
        name: str | None = None,
        timeout: Duration = 10.0,
        listen: bool = True,
    ) -> None:
        """*name* is for people who look at the broker; *timeout* bounds every call that does not say otherwise.

        Without *listen* the client begins to hear of outcomes only when somebody waits for one: for
        processes that start runs and never look back.
        """
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", name or "client")[:40]
        self.name = f"{words}-{uuid4().hex[:12]}"
        self._timeout = seconds("timeout", timeout) or 0.0
        self._connection = Connection(broker, clock=clock, client_id=self.name, timeout=self._timeout)
        self._starter = RunStarter(self._connection)
        self._listen = listen

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnavailableError: the broker cannot be reached, or refuses us.
        """
        try:
            await self._connection.start(listen=self._listen)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect, after what was said has been confirmed or a few seconds are over. Safe to call twice."""
        await self._connection.close()

    @property
    def connection(self) -> Connection:
        """What this client shares with its handles, and with the workers of the same process."""
        return self._connection

    async def enqueue(
        self,
        workflow: str,
        arguments: Any = None,
        *,
        version: str,
        options: WorkflowOptions = _DEFAULTS,
        timeout: Duration | None = None,
    ) -> Handle[Any]:
        """Start a run of a workflow that is known by name only; *arguments* are its own, by name.

        Nobody checks them before a worker does: ``workflow.enqueue(client, ...)`` is the better way where
        the workflow can be imported. Raises as ``enqueue_workflow``.
        """
        target = Target(workflow_name(workflow), version_name(version), load_payload)
        payload = dump_anything({} if arguments is None else arguments, what=f"input of workflow {workflow!r}")
        return await self._start_one(target, payload, options, timeout)

    async def enqueue_workflow(
        self,
        workflow: Workflow[..., R],
        payload: Payload,
        options: WorkflowOptions = _DEFAULTS,
        *,
        timeout: Duration | None = None,
    ) -> Handle[R]:
        """Start a run; returns once it cannot be lost any more.

        With an idempotency key, or ``confirm="stored"``, that is when an orchestrator has stored it,
        else when the broker has confirmed it.

        Raises:
            EnqueueTimeoutError: that did not happen in time; it says whether the run may come about.
            IdempotencyConflictError: the key stands for a run with another input.
            UnroutableError: the broker is not set up.
        """
        return await self._start_one(_target(workflow), payload, options, timeout)

    async def _start_one(
        self, target: Target[R], payload: Payload, options: WorkflowOptions, timeout: Duration | None
    ) -> Handle[R]:
        self._connection.check_open()
        limit = seconds("timeout", timeout) or self._timeout
        (started,) = await self._starter.start(target, (payload,), options, timeout=limit)
        if isinstance(started, AikiError):
            raise started
        return started

    async def enqueue_workflows(
        self,
        workflow: Workflow[..., R],
        payloads: Iterable[Payload],
        options: WorkflowOptions = _DEFAULTS,
        *,
        timeout: Duration | None = None,
    ) -> list[Handle[R]]:
        """Start many runs, hundreds of them with one message; returns once none can be lost any more.

        Raises:
            BatchNotEnqueuedError: some were not confirmed in time; it has the handles of the others.
            InvalidOptionError: one idempotency key was given for all.
        """
        self._connection.check_open()
        if options.idempotency_key is not None:
            raise InvalidOptionError("idempotency_key", options.idempotency_key, expected="left out for many runs")
        inputs = tuple(payloads)
        default = self._timeout + SECONDS_PER_THOUSAND * len(inputs) / 1000
        limit = seconds("timeout", timeout) or default
        started = await self._starter.start(_target(workflow), inputs, options, timeout=limit)
        errors = [error for error in started if isinstance(error, AikiError)]
        handles = [handle for handle in started if isinstance(handle, Handle)]
        if errors:
            raise BatchNotEnqueuedError(handles, errors) from errors[0]
        return handles

    @overload
    def handle(self, run_id: str) -> Handle[Any]: ...

    @overload
    def handle(self, run_id: str, workflow: Workflow[..., R]) -> Handle[R]: ...

    def handle(self, run_id: str, workflow: Workflow[..., Any] | None = None) -> Handle[Any]:
        """Make a handle of a run that was started anywhere, at any time; with *workflow* its result is typed.

        Raises:
            InvalidOptionError: no run can have that id.
        """
        check_text("run_id", run_id, characters_max=ID_CHARACTERS_MAX)
        if workflow is None:
            return self._connection.handle(run_id, decode=load_payload)
        return self._connection.handle(run_id, decode=workflow.signature.load_result, workflow=workflow.name)

    async def get(self, run_id: str) -> RunState:
        """Read everything that is known of a run.

        Raises:
            RunNotFoundError: there is none with that id.
            InvalidOptionError: there can be none with that id.
            QueryTimeoutError: no orchestrator answered.
        """
        return await self.handle(run_id).get()

    async def find(
        self,
        where: RunFilter = RunFilter(),  # noqa: B008 - a frozen value
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """List runs, newest first; *cursor* is that of the page before. Raises as all questions do.

        Raises:
            BrokerUnavailableError, QueryTimeoutError: there is no answer in time.
            QueryFailedError: an orchestrator could not do it.
            InvalidOptionError: a moment of *where* has no time zone.
        """
        wanted = replace(
            where,
            created_after=moment("created_after", where.created_after),
            created_before=moment("created_before", where.created_before),
        )
        return await self._connection.ask(FindRuns(filter=wanted, limit=limit, cursor=cursor), RunPage)

    async def stats(self) -> Stats:
        """Count runs by workflow and status, and tell which orchestrators and workers are there."""
        return await self._connection.ask(GetStats(), Stats)

    async def dead_letters(
        self, *, limit: int = 50, cursor: str | None = None, include_done: bool = False
    ) -> DeadLetterPage:
        """List dead letters, newest first; those that were redriven or discarded only if asked for."""
        query = ListDeadLetters(limit=limit, cursor=cursor, include_done=include_done)
        return await self._connection.ask(query, DeadLetterPage)

    async def dead_letter(self, letter_id: str) -> StoredDeadLetter:
        """Read a dead letter.

        Raises:
            DeadLetterNotFoundError: there is none with that id.
            InvalidOptionError: there can be none with that id.
        """
        return await self._letter(GetDeadLetter(letter_id=letter_id))

    async def redrive(self, letter_id: str) -> StoredDeadLetter:
        """Send a dead letter on its way again: its run is retried, or its message delivered.

        Raises as ``dead_letter``.
        """
        redriven = await self._letter(RedriveDeadLetter(letter_id=letter_id))
        letter = redriven.letter
        if letter.run_id is not None:
            # Whoever has a handle of the run, and has heard of its end, waits anew.
            self._connection.listener.reopen(letter.run_id, letter.at)
        return redriven

    async def discard(self, letter_id: str) -> StoredDeadLetter:
        """Mark a dead letter as done with. Raises as ``dead_letter``."""
        return await self._letter(DiscardDeadLetter(letter_id=letter_id))

    async def _letter(self, query: GetDeadLetter | RedriveDeadLetter | DiscardDeadLetter) -> StoredDeadLetter:
        check_text("letter_id", query.letter_id, characters_max=ID_CHARACTERS_MAX)
        found = await self._connection.ask(query, DeadLetterFound)
        if found.letter is None:
            raise DeadLetterNotFoundError(query.letter_id)
        return found.letter


def _target(workflow: Workflow[..., R]) -> Target[R]:
    return Target(workflow.name, workflow.version, workflow.signature.load_result)
