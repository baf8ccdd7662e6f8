"""What a task can know and say while it is executed."""

from collections.abc import Callable
from threading import Event
from typing import Any

from aiki.observability.logs import Logger, get_logger

__all__ = ["TaskContext"]

_logger = get_logger("aiki.task")


class TaskContext:
    """One attempt of a task. Ask for it with a first parameter annotated ``TaskContext``.

    Everything here may be used from the thread of a plain function as well.
    """

    def __init__(
        self,
        *,
        task: str,
        run_id: str,
        attempt: int,
        idempotency_key: str,
        on_heartbeat: Callable[[Any], None] | None = None,
    ) -> None:
        self.task = task
        self.run_id = run_id
        self.attempt = attempt
        """1 for the first attempt. A lost worker does not count."""
        self.idempotency_key = idempotency_key
        """The same on each attempt and after each crash: hand it to the systems that the task calls."""
        self._on_heartbeat = on_heartbeat
        self._is_cancelled = False

    @property
    def logger(self) -> Logger:
        """A logger that names the run, the task and the attempt in every line."""
        return _logger.bind(run_id=self.run_id, task=self.task, attempt=self.attempt)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more. An ``async`` task is cancelled; a thread has to look."""
        return self._is_cancelled

    def wait_cancelled(self, timeout: float) -> bool:
        """Block the thread of a plain function until the attempt is cancelled, at most *timeout* seconds."""
        # Made by whoever waits first, in one step that no other thread comes between: most attempts need none.
        news: Event = self.__dict__.setdefault("_news", Event())
        return self._is_cancelled or news.wait(timeout)

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the task is alive: its ``heartbeat_timeout`` begins anew. As cheap as a function call.

        *progress* says how far it is. It goes to the worker's log (``task.progress``) and nowhere else: it is not
        recorded, and a next attempt does not see it.
        """
        if self._on_heartbeat is not None:
            self._on_heartbeat(progress)

    def finish(self) -> None:
        """Note that the attempt is over: its heartbeats mean nothing from here on. Called by the worker."""
        self._on_heartbeat = None

    def cancel(self) -> None:
        """Tell the task that nobody waits for it any more. Called by the worker."""
        self._is_cancelled = True
        news: Event | None = self.__dict__.get("_news")
        if news is not None:
            news.set()
