"""The run: what a workflow is given to decide with. All of it gives the same answers again when it is replayed."""

import sys
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload
from uuid import UUID

from aiki.engine.payload import Payload, load_payload
from aiki.errors import InvalidOptionError
from aiki.observability.logs import get_logger
from aiki.sdk.calls import Caller
from aiki.sdk.names import signal_name
from aiki.sdk.options import Duration, seconds
from aiki.sdk.parameters import load_as
from aiki.sdk.values import dump_anything

if TYPE_CHECKING:
    from aiki.sdk.task import Task
    from aiki.sdk.workflow import Workflow

__all__ = ["Run", "RunDriver", "RunLogger"]

T = TypeVar("T")

_logger = get_logger("aiki.run")


class RunDriver(Protocol):
    """Who drives a run: the worker, or a test. Everything that a workflow asks for goes through here."""

    @property
    def is_replaying(self) -> bool:
        """Whether what the workflow does now, it has done before."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be logged: replaying, or discarded."""
        ...

    def now(self) -> datetime:
        """Tell the logical time."""
        ...

    def call_task(self, task: "Task[..., Any]", arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        """Give the recorded result of a task, or have it executed."""
        ...

    def call_child(self, workflow: "Workflow[..., Any]", arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        """Give the recorded result of a child run, or start it."""
        ...

    def wait_for_signal(self, name: str, caller: Caller) -> Awaitable[Payload]:
        """Give the next signal of that name."""
        ...

    def sleep(self, delay: float, caller: Caller) -> Awaitable[None]:
        """Wait, durably."""
        ...

    def set_status(self, note: Payload, caller: Caller) -> None:
        """Record what the workflow says of itself."""
        ...

    def outside(self) -> AbstractContextManager[None]:
        """Lift the ban on I/O, for code of ours."""
        ...


class Run:
    """One execution of a workflow, as its code sees it."""

    def __init__(
        self,
        driver: RunDriver,
        *,
        run_id: str,
        workflow: str,
        version: str,
        arguments: Payload,
        seed: str,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.driver = driver
        """Who drives this run. Not for workflows."""
        self.id = run_id
        self.workflow = workflow
        self.version = version
        self.tags = tags
        self._arguments = arguments
        self._seed = seed

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.workflow}@{self.version}>"

    @cached_property
    def input(self) -> dict[str, Any]:
        """The arguments by name, in JSON's own types. The workflow's parameters have them as they are annotated."""
        return cast(dict[str, Any], load_payload(self._arguments))

    @cached_property
    def random(self) -> Random:
        """Random numbers that are the same again in every replay of this run. Not for secrets."""
        return Random(f"{self._seed}:random")

    @cached_property
    def _uuids(self) -> Random:
        return Random(f"{self._seed}:uuid")

    @cached_property
    def logger(self) -> "RunLogger":
        """A logger that names the run in every line, and is silent while the run is replayed."""
        return RunLogger(self.driver, run_id=self.id, workflow=self.workflow)

    @property
    def is_replaying(self) -> bool:
        """Whether what the workflow does now, it has done before. For logs and metrics; never branch on it."""
        return self.driver.is_replaying

    def now(self) -> datetime:
        """Tell the logical time: aware, UTC. It moves when something that was awaited happens, and only then."""
        return self.driver.now()

    def uuid(self) -> UUID:
        """Make a random UUID that is the same again in every replay."""
        return UUID(int=self._uuids.getrandbits(128), version=4)

    def sleep(self, duration: Duration) -> Coroutine[object, None, None]:
        """Wait, durably: for days if need be, without holding anything. ``asyncio.sleep`` does the same.

        Raises:
            InvalidOptionError: *duration* is negative or no duration.
        """
        delay = seconds("duration", duration, zero=True)
        if delay is None:
            raise InvalidOptionError("duration", duration, expected="a timedelta or a number of seconds")
        frame = sys._getframe(1)
        return self._sleep(delay, Caller(frame.f_code, frame.f_lineno))

    async def _sleep(self, delay: float, caller: Caller) -> None:
        await self.driver.sleep(delay, caller)

    @overload
    def wait_for_signal(self, name: str) -> Coroutine[object, None, Any]: ...
    @overload
    def wait_for_signal(self, name: str, type: type[T]) -> Coroutine[object, None, T]: ...

    def wait_for_signal(self, name: str, type: Any = None) -> Coroutine[object, None, Any]:  # noqa: A002 - `type=` is what one expects to write
        """Wait for the next signal of that name, and read it as *type*.

        Raises:
            InvalidNameError: *name* cannot be the name of a signal.
            RecordMismatchError: the signal cannot be read as *type*.
            ConfigurationError: nothing can be read as *type*.
        """
        frame = sys._getframe(1)
        return self._signal(signal_name(name), type, Caller(frame.f_code, frame.f_lineno))

    async def _signal(self, name: str, wanted: Any, caller: Caller) -> Any:
        payload = await self.driver.wait_for_signal(name, caller)
        return load_payload(payload) if wanted is None else load_as(wanted, payload, f"signal {name!r}")

    def set_status(self, value: Any) -> None:
        """Say how far the run is: shown to whoever watches it. Any value that pydantic can serialise.

        Raises:
            PayloadError: it cannot be written as JSON.
            PayloadTooLargeError: it is too long.
        """
        frame = sys._getframe(1)
        self.driver.set_status(dump_anything(value, what="status"), Caller(frame.f_code, frame.f_lineno))


class RunLogger:
    """Logs what a workflow says, once: silent in replays, and when the workflow is discarded."""

    def __init__(self, driver: RunDriver, **fields: Any) -> None:
        self._driver = driver
        self._fields = fields

    def bind(self, **fields: Any) -> "RunLogger":
        """Make a logger with more fields in every line."""
        return RunLogger(self._driver, **{**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """Log *event* with level debug."""
        self._log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log *event* with level info."""
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log *event* with level warning."""
        self._log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log *event* with level error."""
        self._log("error", event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Log *event* with level critical."""
        self._log("critical", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log *event* with level error and the exception that is being handled."""
        self._log("error", event, {"exc_info": True, **fields})

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self._driver.is_silent:
            return
        # A handler may do what the workflow may not: open a file, talk to a socket.
        with self._driver.outside():
            getattr(_logger, level)(event, **{**self._fields, **fields})
