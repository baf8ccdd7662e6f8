"""The workbench: the attempts of one run that are under way on this worker."""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial

from aiki.engine.commands import ExecuteRun
from aiki.engine.ids import idempotency_key_of
from aiki.observability.logs import get_logger
from aiki.worker.alarms import Bell
from aiki.worker.attempts import STOP_SECONDS, Attempt, Attempted
from aiki.worker.host import Host
from aiki.worker.operations import Operation, TaskOperation

__all__ = ["Workbench"]

log = get_logger(__name__)


class Workbench:
    """Starts attempts, stops them, and tells what came of them."""

    def __init__(
        self,
        command: ExecuteRun,
        host: Host,
        *,
        on_end: Callable[[TaskOperation, Attempted], None],
        on_change: Callable[[], None],
        on_trouble: Callable[[BaseException], None],
    ) -> None:
        """*on_end* hears what came of an attempt, unless it was cancelled, *on_change* that any has ended.

        *on_trouble* hears of defects of ours.
        """
        self._command = command
        self._host = host
        self._on_end = on_end
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._attempts: dict[str, tuple[Attempt, asyncio.Task[Attempted]]] = {}
        self._patience = Bell(host.clock, self._leave_behind)
        # Tasks see the worker's context and nothing of the workflow's, nor of each other's.
        self._context = copy_context()

    @property
    def is_busy(self) -> bool:
        """Whether any attempt is under way."""
        return bool(self._attempts)

    def start(self, operation: TaskOperation) -> None:
        """Start the next attempt of *operation*."""
        command = self._command
        attempt = Attempt(
            operation.task,
            operation.arguments,
            self._host,
            run_id=command.run_id,
            attempt=operation.failed_attempts + 1,
            idempotency_key=idempotency_key_of(command.run_id, command.incarnation, operation.id),
        )
        loop = asyncio.get_running_loop()
        task = loop.create_task(attempt.execute(), name=operation.id, context=self._context.copy())
        self._attempts[operation.id] = attempt, task
        task.add_done_callback(partial(self._over, operation))

    def _over(self, operation: TaskOperation, task: "asyncio.Task[Attempted]") -> None:
        self._attempts.pop(operation.id, None)
        if task.cancelled():
            operation.busy = False
        elif (error := task.exception()) is not None:
            self._on_trouble(error)
        else:
            self._on_end(operation, task.result())
        self._on_change()

    def cancel(self, operation: Operation) -> None:
        """Stop the attempt of *operation*, if one is under way: the workflow does not want it any more."""
        if operation.id in self._attempts:
            attempt, task = self._attempts[operation.id]
            attempt.cancel(task)

    def cut_off(self) -> None:
        """Stop all attempts, which then do not count, and soon wait no longer for those that will not stop."""
        if not self._attempts:
            return
        for attempt, task in self._attempts.values():
            attempt.cancel(task)
        self._patience.set(self._host.clock.now(), STOP_SECONDS)

    def _leave_behind(self) -> None:
        _report(task for _, task in self._attempts.values())
        self._attempts.clear()
        self._on_change()

    async def close(self) -> None:
        """Stop all attempts, and wait for them a while."""
        running = [task for _, task in self._attempts.values()]
        self.cut_off()
        self._patience.take_down()
        if running:
            _, stubborn = await asyncio.wait(running, timeout=STOP_SECONDS)
            _report(stubborn)
        # What ends from here on concerns nobody, and nobody is held for it.
        self._on_end = self._on_change = self._on_trouble = _ignore


def _ignore(*_news: object) -> None:
    """Hear nothing."""


def _report(stubborn: "Iterable[asyncio.Task[Attempted]]") -> None:
    for task in stubborn:
        log.warning("task.would_not_stop", operation=task.get_name(), seconds=STOP_SECONDS)
