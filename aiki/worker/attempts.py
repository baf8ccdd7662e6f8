"""Attempts: executing the function of a task once, with its limits, and saying what came of it.

The function runs on the worker's event loop, or in a thread where it is a plain one.
Every exception of it is a failed attempt, ``SystemExit`` and ``KeyboardInterrupt``
too: a task does not end its worker. Being cancelled by the worker is no attempt.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiki.engine.commands import ExecuteTask
from aiki.engine.events import TaskFinished
from aiki.engine.payload import Payload
from aiki.errors import TaskHeartbeatTimeoutError, TaskTimeoutError
from aiki.observability.logs import get_logger
from aiki.sdk.context import TaskContext
from aiki.sdk.task import Task
from aiki.worker.failures import failure_of
from aiki.worker.host import Host

__all__ = ["Attempt", "Attempted", "execute_task"]

log = get_logger(__name__)

# A function that was cancelled gets this long to clean up; after that nobody waits for it any more.
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt: a result, or an exception."""

    started_at: datetime
    ended_at: datetime
    result: Payload | None = None
    error: BaseException | None = None


class Attempt:
    """One attempt of a task."""

    def __init__(
        self,
        task: Task[..., Any],
        arguments: Payload,
        host: Host,
        *,
        run_id: str,
        attempt: int,
        idempotency_key: str,
        timeout: float | None = None,
    ) -> None:
        self.number = attempt
        self._task = task
        self._arguments = arguments
        self._host = host
        self._timeout = task.options.timeout if timeout is None else timeout
        self._heartbeat_timeout = task.options.heartbeat_timeout
        self._beat_at = 0.0
        self._context = TaskContext(
            task=task.name,
            run_id=run_id,
            attempt=attempt,
            idempotency_key=idempotency_key,
            on_heartbeat=self._on_heartbeat,
        )

    def cancel(self, running: "asyncio.Task[Attempted]") -> None:
        """Stop it: nobody waits for what comes of it. *running* is the task that awaits ``execute``."""
        self._context.cancel()
        running.cancel()

    async def execute(self) -> Attempted:
        """Execute the function and tell what came of it. Raises ``CancelledError`` only if ``cancel`` was called."""
        started_at = self._host.clock.now()
        self._beat_at = self._host.clock.monotonic()
        try:
            if self._timeout is None and self._heartbeat_timeout is None:
                outcome = await self._call()
            else:
                outcome = await self._call_within_limits()
        finally:
            self._context.finish()
        ended_at = max(started_at, self._host.clock.now())
        if isinstance(outcome, BaseException):
            return Attempted(started_at, ended_at, error=outcome)
        return Attempted(started_at, ended_at, result=outcome)

    async def _call(self) -> Payload | BaseException:
        try:
            call = self._task.invoke(self._context, self._arguments)
            if self._task.is_async:
                value = await call()
            else:
                value = _unwrapped(await self._host.run_in_thread(lambda: _wrapped(call)))
            return self._task.signature.dump_result(value)
        except GeneratorExit:
            raise
        except asyncio.CancelledError as error:
            if self._context.cancelled:
                raise
            return error
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
            return error

    async def _call_within_limits(self) -> Payload | BaseException:
        work = asyncio.ensure_future(self._call())
        try:
            late = await self._watch(work)
        except asyncio.CancelledError:
            await self._stop(work)
            raise
        if late is None:
            return await work
        await self._stop(work)
        return late

    async def _watch(self, work: "asyncio.Future[Any]") -> TaskTimeoutError | None:
        clock = self._host.clock
        started = clock.monotonic()
        while True:
            late, remaining = self._limit(clock.monotonic(), started)
            if remaining <= 0:
                return None if work.done() else late
            alarm = asyncio.ensure_future(clock.sleep(remaining))
            try:
                await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                alarm.cancel()
            if work.done():
                return None

    def _limit(self, now: float, started: float) -> tuple[TaskTimeoutError, float]:
        limits: list[tuple[float, TaskTimeoutError]] = []
        if self._timeout is not None:
            limits.append((started + self._timeout, TaskTimeoutError(self._task.name, timeout=self._timeout)))
        if self._heartbeat_timeout is not None:
            silent = TaskHeartbeatTimeoutError(self._task.name, timeout=self._heartbeat_timeout)
            limits.append((self._beat_at + self._heartbeat_timeout, silent))
        moment, error = min(limits, key=lambda limit: limit[0])
        return error, moment - now

    async def _stop(self, work: "asyncio.Future[Any]") -> None:
        self._context.cancel()
        work.cancel()
        _, pending = await asyncio.wait({work}, timeout=STOP_SECONDS)
        if pending:
            log.warning("task.would_not_stop", task=self._task.name, seconds=STOP_SECONDS)

    def _on_heartbeat(self, progress: Any) -> None:
        self._beat_at = self._host.clock.monotonic()
        if progress is not None:
            self._context.logger.info("task.progress", progress=progress)


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


def _wrapped(call: Callable[[], Any]) -> Any:
    # Futures between threads cannot carry every exception (StopIteration hangs them).
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - it is raised again on the other side
        return _Raised(error)


def _unwrapped(outcome: Any) -> Any:
    if isinstance(outcome, _Raised):
        raise outcome.error
    return outcome


async def execute_task(command: ExecuteTask, task: Task[..., Any], host: Host) -> TaskFinished:
    """Execute a task for a run that is held, or waits, elsewhere, and give the event that says what came of it.

    Cancelling this cancels the task, and nothing is said.
    """
    attempt = Attempt(
        task,
        command.input,
        host,
        run_id=command.run_id,
        attempt=command.attempt,
        idempotency_key=command.idempotency_key,
        timeout=command.timeout,
    )
    running = asyncio.ensure_future(attempt.execute())
    try:
        attempted = await asyncio.shield(running)
    except asyncio.CancelledError:
        attempt.cancel(running)
        await asyncio.wait({running}, timeout=STOP_SECONDS)
        raise
    return TaskFinished(
        id=f"finished:{command.task_id}",
        run_id=command.run_id,
        at=host.clock.now(),
        incarnation=command.incarnation,
        task_id=command.task_id,
        worker=host.worker,
        started_at=attempted.started_at,
        payload=attempted.result,
        failure=None if attempted.error is None else failure_of(attempted.error),
    )
