"""Starting runs: from a workflow and its input to a request that counts once, and to a handle."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar
from uuid import uuid4

from aiki.engine.commands import AnnounceAcceptance
from aiki.engine.events import RunRequested
from aiki.engine.ids import run_id_for_key
from aiki.engine.payload import Payload, digest
from aiki.errors import AcceptanceTimeoutError, AikiError, EnqueueTimeoutError, IdempotencyConflictError
from aiki.sdk.connection import Connection
from aiki.sdk.handle import Handle
from aiki.sdk.options import WorkflowOptions
from aiki.sdk.outcomes import Acceptance
from aiki.sdk.run_ids import RunIds

__all__ = ["RunStarter", "Target"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Target(Generic[R]):
    """What has to be known of a workflow to start it."""

    workflow: str
    version: str
    decode: Callable[[Payload], R]
    """Reads the result of a run."""


class RunStarter:
    """Asks for runs and tells what came of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._run_ids = RunIds()

    async def start(
        self, target: Target[R], payloads: Sequence[Payload], options: WorkflowOptions, *, timeout: float
    ) -> list[Handle[R] | AikiError]:
        """Ask for a run for each of *payloads*: its handle, once it cannot be lost any more, or what is wrong."""
        deadline = asyncio.get_running_loop().time() + timeout
        requests = [self._request(target, payload, options) for payload in payloads]
        if requests and requests[0].answer:
            return await self._start_answered(target, requests, options, deadline=deadline, timeout=timeout)

        handles = [self._handle(target, request, fresh=True) for request in requests]
        errors = await self._publish(requests, timeout)
        return [error or handle for handle, error in zip(handles, errors, strict=True)]

    async def _start_answered(
        self,
        target: Target[R],
        requests: Sequence[RunRequested],
        options: WorkflowOptions,
        *,
        deadline: float,
        timeout: float,
    ) -> list[Handle[R] | AikiError]:
        """Start runs and wait to hear that they are stored. Answers are not kept: listen before anything is sent."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._connection.listener.start()
        except TimeoutError:
            detail = "the broker could not be reached"
            return [_timed_out(request, timeout, certain=True, detail=detail) for request in requests]

        expected = [self._connection.listener.acceptance_of(request) for request in requests]
        handles = [self._handle(target, request, fresh=request.key is None) for request in requests]
        errors = await self._publish(requests, timeout)
        answers = await asyncio.gather(
            *(
                self._answer(acceptance, deadline, timeout) if error is None else _as_it_is(error)
                for acceptance, error in zip(expected, errors, strict=True)
            )
        )
        return [
            answer if isinstance(answer, AikiError) else self._accepted(target, handle, acceptance, answer, options)
            for handle, acceptance, answer in zip(handles, expected, answers, strict=True)
        ]

    async def _publish(self, requests: Sequence[RunRequested], timeout: float) -> list[AikiError | None]:
        errors = await self._connection.publisher.publish_all(requests, timeout=timeout)
        return [
            None if error is None else self._connection.explain(error, request, _named(request), timeout)
            for request, error in zip(requests, errors, strict=True)
        ]

    async def _answer(self, acceptance: Acceptance, deadline: float, timeout: float) -> AnnounceAcceptance | AikiError:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._connection.listener.accepted(acceptance)
        except TimeoutError:
            return AcceptanceTimeoutError(acceptance.request.run_id, timeout=timeout)

    def _accepted(
        self,
        target: Target[R],
        handle: Handle[R],
        acceptance: Acceptance,
        answer: AnnounceAcceptance,
        options: WorkflowOptions,
    ) -> Handle[R] | AikiError:
        if not answer.existing:
            return handle
        request = acceptance.request
        if answer.input_hash != request.input_hash and options.on_conflict == "raise":
            return IdempotencyConflictError(
                request.workflow,
                request.key or "",
                run_id=answer.run_id,
                existing_hash=answer.input_hash,
                input_hash=request.input_hash,
            )
        # Somebody else may have started it: then its outcome is not addressed to us, or was announced long ago.
        return self._connection.handle(answer.run_id, decode=target.decode, workflow=target.workflow)

    def _handle(self, target: Target[R], request: RunRequested, *, fresh: bool) -> Handle[R]:
        return self._connection.handle(
            request.run_id, decode=target.decode, workflow=target.workflow, own=True, fresh=fresh
        )

    def _request(self, target: Target[R], payload: Payload, options: WorkflowOptions) -> RunRequested:
        now = self._connection.clock.now()
        start_at = None if options.delay is None else now + timedelta(seconds=options.delay)
        timeout_at = None if options.timeout is None else (start_at or now) + timedelta(seconds=options.timeout)
        key = options.idempotency_key
        return RunRequested(
            id=uuid4().hex,
            run_id=self._new_run_id(now) if key is None else run_id_for_key(target.workflow, key),
            at=now,
            incarnation=uuid4().hex,
            workflow=target.workflow,
            version=target.version,
            queue=f"{target.workflow}@{target.version}",
            input=payload,
            input_hash=digest(payload),
            key=key,
            client=self._connection.client_id,
            answer=key is not None or options.confirm == "stored",
            start_at=start_at,
            timeout_at=timeout_at,
            recoveries_max=options.recoveries_max,
            priority=options.priority,
            tags=options.tags,
            retention=options.retention,
        )

    def _new_run_id(self, now: datetime) -> str:
        return self._run_ids.next(now, self._connection.broker.partitions)


async def _as_it_is(error: AikiError) -> AikiError:
    return error


def _named(request: RunRequested) -> str:
    return f"run {request.run_id} of workflow {request.workflow!r}"


def _timed_out(request: RunRequested, timeout: float, *, certain: bool, detail: str) -> AikiError:
    return EnqueueTimeoutError(_named(request), timeout=timeout, certain=certain, run_id=request.run_id, detail=detail)
