"""Workflows: plain ``async`` functions that decide what to do next, made durable by what is recorded of them."""

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from aiki.engine.payload import Payload
from aiki.errors import ConfigurationError, DirectCallError, InvalidOptionError
from aiki.sdk.calls import INSIDE_WORKFLOW, Caller
from aiki.sdk.names import name_of, version_name, workflow_name
from aiki.sdk.options import (
    UNSET,
    Confirm,
    Duration,
    OnConflict,
    Unset,
    WorkflowOptions,
    seconds,
    tags_of,
)
from aiki.sdk.parameters import Signature
from aiki.sdk.run import Run

if TYPE_CHECKING:
    from aiki.sdk.handle import Handle

__all__ = ["Call", "Enqueues", "Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Enqueues(Protocol):
    """Who starts runs: a client."""

    async def enqueue_workflow(
        self, workflow: "Workflow[P, R]", payload: Payload, options: WorkflowOptions
    ) -> "Handle[R]":
        """Start one run; returns once it is safe."""
        ...

    async def enqueue_workflows(
        self, workflow: "Workflow[P, R]", payloads: Sequence[Payload], options: WorkflowOptions
    ) -> "list[Handle[R]]":
        """Start many runs; returns once all are safe."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of a workflow, checked and ready to be sent. Made by ``Workflow.arguments``."""

    payload: Payload


class Workflow(Generic[P, R]):
    """An ``async`` function whose runs survive crashes, restarts and deployments. Made by ``@workflow``."""

    def __init__(
        self, function: Callable[..., Any], *, name: str, version: str, options: WorkflowOptions | None = None
    ) -> None:
        self.function = function
        self.name = workflow_name(name)
        self.version = version_name(version)
        self.options = WorkflowOptions() if options is None else options
        self.signature = Signature(function, what=f"workflow {self.name!r}", injected=1)
        self.__name__ = getattr(function, "__name__", self.name)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<workflow {self.queue}>"

    @property
    def queue(self) -> str:
        """Where the runs of this version wait for a worker."""
        return f"{self.name}@{self.version}"

    async def enqueue(self, client: Enqueues, /, *args: P.args, **kwargs: P.kwargs) -> "Handle[R]":
        """Start a run. When this returns, the run is not going to be lost.

        Raises:
            InvalidArgumentsError: the arguments do not fit; nothing was sent.
            EnqueueTimeoutError: the broker did not confirm in time.
            IdempotencyConflictError: the idempotency key stands for a run with another input.
        """
        return await client.enqueue_workflow(self, self.signature.dump(args, kwargs), self.options)

    async def enqueue_many(self, client: Enqueues, inputs: Iterable[Any], /) -> "list[Handle[R]]":
        """Start a run for each of *inputs*, in one go: the only argument, or what ``arguments(...)`` made.

        All are checked before the first is sent.

        Raises:
            InvalidArgumentsError: an input does not fit; nothing was sent.
            InvalidOptionError: there is an idempotency key, which can stand for one run only.
            EnqueueTimeoutError: the broker did not confirm all in time.
        """
        if self.options.idempotency_key is not None:
            raise InvalidOptionError(
                "idempotency_key", self.options.idempotency_key, expected="left out of enqueue_many: it names one run"
            )
        payloads = [each.payload if isinstance(each, Call) else self.signature.dump((each,), {}) for each in inputs]
        return await client.enqueue_workflows(self, payloads, self.options)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Check arguments and keep them for ``enqueue_many``.

        Raises:
            InvalidArgumentsError: they do not fit.
        """
        return Call(self.signature.dump(args, kwargs))

    def run(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Start a child run from a workflow, and wait for its result.

        Cancelling what awaits it cancels the child.

        Raises (when awaited):
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
            ChildFailedError: the child failed, was cancelled, or was parked because it kills its workers.
        """
        frame = sys._getframe(1)
        return self._called(run, Caller(frame.f_code, frame.f_lineno), args, kwargs)

    async def _called(self, run: Run, caller: Caller, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        arguments = self.signature.dump(args, kwargs)
        result = await run.driver.call_child(self, arguments, caller)
        return cast(R, self.signature.load_result(result))

    async def __call__(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, for unit tests that bring a ``Run`` of their own.

        Raises:
            DirectCallError: a workflow called it.
        """
        if INSIDE_WORKFLOW.get():
            raise DirectCallError("workflow", self.name, self.__name__)
        return cast(R, await self.function(run, *args, **kwargs))

    def start(self, run: Run, arguments: Payload) -> Coroutine[Any, Any, R]:
        """Read *arguments* and make the coroutine that a worker drives.

        Raises:
            RecordMismatchError: they were written for another signature.
        """
        return cast(Coroutine[Any, Any, R], self.function(run, **self.signature.load(arguments)))

    def with_options(
        self,
        *,
        idempotency_key: str | Unset | None = UNSET,
        on_conflict: OnConflict | Unset = UNSET,
        confirm: Confirm | Unset = UNSET,
        delay: Duration | Unset | None = UNSET,
        priority: int | Unset = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        retention: Duration | Unset | None = UNSET,
        timeout: Duration | Unset | None = UNSET,
        recoveries_max: int | Unset = UNSET,
    ) -> "Workflow[P, R]":
        """Make a copy whose runs are started in another way. What is not given stays.

        Raises:
            InvalidOptionError: a value makes no sense.
        """
        changes: dict[str, Any] = {
            "idempotency_key": idempotency_key,
            "on_conflict": on_conflict,
            "confirm": confirm,
            "delay": delay if isinstance(delay, Unset) else seconds("delay", delay, zero=True),
            "priority": priority,
            "tags": tags if isinstance(tags, Unset) else tags_of(tags),
            "retention": retention if isinstance(retention, Unset) else seconds("retention", retention, zero=True),
            "timeout": timeout if isinstance(timeout, Unset) else seconds("timeout", timeout),
            "recoveries_max": recoveries_max,
        }
        given = {option: value for option, value in changes.items() if value is not UNSET}
        options = replace(self.options, **given)
        return Workflow(self.function, name=self.name, version=self.version, options=options)


class WorkflowDecorator(Protocol):
    """What ``@workflow(...)`` with options gives."""

    def __call__(self, function: Callable[Concatenate[Run, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
        """Make *function* a workflow."""
        ...


@overload
def workflow(function: Callable[Concatenate[Run, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None, version: str = "1.0.0") -> WorkflowDecorator: ...


def workflow(function: Callable[..., Any] | None = None, /, *, name: str | None = None, version: str = "1.0.0") -> Any:
    """Make an ``async`` function, whose first parameter is the ``Run``, a workflow.

    *name* is part of its queue's name (the function's name in kebab case). A run stays with the
    *version* that it was started with; workers may serve several.

    Raises:
        InvalidNameError: the name or the version cannot be one.
        ConfigurationError: the function is not ``async``, or takes no run.
    """

    def decorate(decorated: Callable[..., Any]) -> Workflow[..., Any]:
        if not inspect.iscoroutinefunction(decorated):
            raise ConfigurationError(
                f"@workflow decorates `async def` functions, not {decorated!r}",
                hint="a plain function that does the work is a task",
            )
        if not inspect.signature(decorated).parameters:
            raise ConfigurationError(
                f"workflow {decorated.__qualname__!r} takes no run", hint="write `async def ...(run: Run, ...)`"
            )
        return Workflow(decorated, name=name_of(decorated, name, what="workflow"), version=version)

    return decorate if function is None else decorate(function)
