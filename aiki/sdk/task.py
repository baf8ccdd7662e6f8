"""Tasks: the functions that touch the world. Whatever they return is recorded, and they never run again."""

import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from aiki.engine.payload import Payload
from aiki.engine.retry import RetryPolicy
from aiki.errors import ConfigurationError, DirectCallError
from aiki.sdk.calls import INSIDE_WORKFLOW, Caller
from aiki.sdk.context import TaskContext
from aiki.sdk.names import name_of, task_name
from aiki.sdk.options import UNSET, Duration, TaskOptions, Unset, seconds
from aiki.sdk.parameters import Signature
from aiki.sdk.run import Run

__all__ = ["Task", "task"]

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function that a workflow may call, and whose outcome is recorded. Made by ``@task``.

    ``.run(run, ...)`` calls it from a workflow. Calling the task itself is calling the
    plain function, for unit tests.
    """

    def __init__(self, function: Callable[..., Any], *, name: str, options: TaskOptions) -> None:
        self.function = function
        self.name = task_name(name)
        self.options = options
        self.is_async = inspect.iscoroutinefunction(function)
        self.takes_context = _takes_context(function)
        self.signature = Signature(function, what=f"task {self.name!r}", injected=int(self.takes_context))
        self.__name__ = getattr(function, "__name__", self.name)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def run(self, run: Run, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Call the task from a workflow: recorded once, tried again as its policy says.

        Raises (when awaited):
            InvalidArgumentsError: the arguments do not fit; nothing was recorded.
            TaskFailedError: the last attempt failed.
        """
        # Not Coroutine[Any, Any, R]: with Any in it, type checkers give up on the result of asyncio.gather.
        frame = sys._getframe(1)
        return self._called(run, Caller(frame.f_code, frame.f_lineno), args, kwargs)

    async def _called(self, run: Run, caller: Caller, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        arguments = self.signature.dump(args, kwargs)
        result = await run.driver.call_task(self, arguments, caller)
        return cast(R, self.signature.load_result(result))

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, outside any workflow.

        Raises:
            DirectCallError: a workflow called it.
        """
        if INSIDE_WORKFLOW.get():
            raise DirectCallError("task", self.name, self.__name__)
        leading = (self._context_of_a_direct_call(),) if self.takes_context else ()
        result = self.function(*leading, *args, **kwargs)
        return cast(R, await result if self.is_async else result)

    def _context_of_a_direct_call(self) -> TaskContext:
        return TaskContext(task=self.name, run_id="direct-call", attempt=1, idempotency_key="direct-call")

    def invoke(self, context: TaskContext, arguments: Payload) -> Callable[[], Any]:
        """Read *arguments* and bind them: calling what this returns executes the function. For workers.

        Raises:
            RecordMismatchError: they were written for another signature.
        """
        keywords = self.signature.load(arguments)
        leading = (context,) if self.takes_context else ()
        return lambda: self.function(*leading, **keywords)

    def with_options(
        self,
        *,
        retry: RetryPolicy | Unset = UNSET,
        timeout: Duration | Unset | None = UNSET,
        heartbeat_timeout: Duration | Unset | None = UNSET,
        queue: str | Unset | None = UNSET,
    ) -> "Task[P, R]":
        """Make a copy that is executed in another way. What is not given stays.

        Raises:
            InvalidOptionError, InvalidNameError: a value makes no sense.
        """
        changes: dict[str, Any] = {
            "retry": retry,
            "timeout": timeout if isinstance(timeout, Unset) else seconds("timeout", timeout),
            "heartbeat_timeout": heartbeat_timeout
            if isinstance(heartbeat_timeout, Unset)
            else seconds("heartbeat_timeout", heartbeat_timeout),
            "queue": queue,
        }
        given = {option: value for option, value in changes.items() if value is not UNSET}
        return Task(self.function, name=self.name, options=replace(self.options, **given))


def _takes_context(function: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        return False
    annotation = parameters[0].annotation
    # A string where the module has `from __future__ import annotations`; the name may be qualified.
    return annotation is TaskContext or (
        isinstance(annotation, str) and annotation.rpartition(".")[2] == TaskContext.__name__
    )


class TaskDecorator(Protocol):
    """What ``@task(...)`` with options gives."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R]) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R]: ...


@overload
def task(function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retry: RetryPolicy = ...,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: str | None = None,
) -> TaskDecorator: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: str | None = None,
) -> Any:
    """Make a function a task. Plain functions are executed in threads, ``async`` ones on the worker's event loop.

    A plain function cannot be stopped from outside: where it may be cancelled or take too long, it
    should look at ``ctx.cancelled``.

    *name* is what the journal calls it (the function's name in kebab case), *timeout* bounds one
    attempt, *heartbeat_timeout* the time between two heartbeats, *queue* names the workers that
    execute it where that should not be the one of the workflow.

    Raises:
        InvalidNameError, InvalidOptionError, ConfigurationError: something here makes no sense.
    """
    options = TaskOptions(
        retry=TaskOptions().retry if retry is None else retry,
        timeout=seconds("timeout", timeout),
        heartbeat_timeout=seconds("heartbeat_timeout", heartbeat_timeout),
        queue=queue,
    )

    def decorate(decorated: Callable[..., Any]) -> Task[..., Any]:
        if not callable(decorated):
            raise ConfigurationError(f"@task decorates functions, not {decorated!r}")
        return Task(decorated, name=name_of(decorated, name, what="task"), options=options)

    return decorate if function is None else decorate(function)
