"""The private event loop of a workflow: deterministic, without I/O, never blocking.

It has what asyncio's own building blocks need: ready callbacks, futures, tasks, a
logical clock, timers. Ready callbacks run in the order in which they became ready,
and timers fire only when they are told to, so what a workflow does depends on what
it is given and on nothing else. Everything that reaches for the world raises an
error that says to move it into a task.
"""

import asyncio
import sys
from asyncio.events import Handle, TimerHandle
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from threading import get_ident
from types import TracebackType
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple

from aiki.errors import WorkflowIOError, WorkflowStuckError
from aiki.worker.isolation import driving, install

__all__ = ["Timekeeper", "WorkflowFuture", "WorkflowLoop", "WorkflowTask"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A workflow that has not come to rest after so many callbacks is going round in circles (about a second's worth).
CALLBACKS_MAX = 1_000_000

# A discarded coroutine may wait again in a `finally`, and is then closed again. So often, and no more.
CLOSES_MAX = 100


class Timekeeper(Protocol):
    """Who knows the logical time and looks after timers."""

    def time(self) -> float:
        """Tell the logical time, in seconds."""
        ...

    def timer_set(self, handle: TimerHandle, delay: float) -> None:
        """A callback is wanted after *delay* seconds: give it to ``fire`` when that has happened."""
        ...

    def timer_cancelled(self, handle: TimerHandle) -> None:
        """It is not wanted any more; also said of callbacks that have run already."""
        ...

    def went_wrong(self, context: dict[str, Any]) -> None:
        """An exception that nobody looks at, as ``loop.call_exception_handler`` gets it."""
        ...


@dataclass(frozen=True, slots=True)
class _Stopped(Timekeeper):
    """The time of a loop that was discarded: it stands still."""

    at: float

    def time(self) -> float:
        """Tell when it stopped."""
        return self.at

    def timer_set(self, handle: TimerHandle, delay: float) -> None:
        """Nothing fires any more."""

    def timer_cancelled(self, handle: TimerHandle) -> None:
        """Nothing would have fired."""

    def went_wrong(self, context: dict[str, Any]) -> None:
        """Nobody looks any more."""


class WorkflowFuture(asyncio.Future[T]):
    """A future that has the same place in a set in every replay (``asyncio.wait`` puts them into one)."""

    __slots__ = ("_number",)

    def __init__(self, loop: "WorkflowLoop") -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class WorkflowTask(asyncio.Task[T]):
    """A task that has the same place in a set in every replay (``TaskGroup`` keeps them in one)."""

    __slots__ = ("_number",)

    def __init__(self, coro: Coroutine[Any, Any, T], loop: "WorkflowLoop", name: str | None, context: Context | None):
        number = loop.next_number()
        # asyncio keeps the tasks of all loops in one set. Every run has a task of number one: with that for its place
        # there, each new one would be compared with those of all runs that are held.
        self._number = id(self)
        super().__init__(coro, loop=loop, name=name or f"Task-{number}", context=context)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class WorkflowLoop(asyncio.AbstractEventLoop):
    """An event loop that is driven from outside, a burst at a time."""

    def __init__(self, timekeeper: Timekeeper) -> None:
        install()
        self._timekeeper = timekeeper
        self._ready: deque[Handle] = deque()
        self._tasks: set[WorkflowTask[Any]] = set()
        self._numbers = 0
        self._thread = get_ident()
        self._discarded = False

    # -- driving ---------------------------------------------------------------------------------

    def running(self) -> AbstractContextManager[None]:
        """Make this the running loop, and its thread one that may not do I/O, inside the ``with`` block.

        Used in a plain callback of the thread's own event loop, or without one; never inside a task.
        """
        return _Running(self)

    def run_until_quiescent(self) -> None:
        """Run what is ready, and what becomes ready by it, until nothing is. Called inside ``running()``.

        Raises:
            WorkflowStuckError: it does not come to rest.
        """
        ready = self._ready
        for _ in range(CALLBACKS_MAX):
            if not ready:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                try:  # noqa: SIM105 - a context manager here would take longer than all the rest
                    handle._run()
                except (SystemExit, KeyboardInterrupt):
                    pass  # asyncio lets these through after the task that raised them has noted them as its end.
        raise WorkflowStuckError(
            f"the workflow did not come to rest within {CALLBACKS_MAX:,} steps",
            hint="is there a loop around asyncio.sleep(0)? wait for something that happens instead",
        )

    @property
    def is_quiescent(self) -> bool:
        """Whether nothing is ready to run."""
        return not self._ready

    def fire(self, handle: TimerHandle) -> None:
        """Make the callback of a timer ready."""
        self._ready.append(handle)

    def discard(self) -> None:
        """End everything that is still waiting, so that nobody notices: nothing is started, recorded or logged.

        A ``finally`` runs, but the first thing that it asks of the loop ends it.
        """
        if self._discarded:
            return
        self._discarded = True
        self._ready.clear()
        with _Running(self):
            for task in list(self._tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._tasks.clear()
        self._ready.clear()
        # Two that hold each other would wait for the garbage collector, and all that hangs on them with them.
        self._timekeeper = _Stopped(self._timekeeper.time())

    @property
    def is_discarded(self) -> bool:
        """Whether ``discard`` was called."""
        return self._discarded

    def next_number(self) -> int:
        """Number things in the order of their making."""
        self._numbers += 1
        return self._numbers

    # -- what asyncio asks for -------------------------------------------------------------------

    def time(self) -> float:
        """Tell the logical time, in seconds since the start of the run."""
        return self._timekeeper.time()

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Handle:
        """Run *callback* in this burst."""
        handle = Handle(callback, args, self, context)
        if not self._discarded:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        """As ``call_soon``, and an error from any other thread."""
        if get_ident() != self._thread:
            raise WorkflowIOError("callbacks from other threads")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Run *callback* after *delay* seconds of logical time: a durable timer."""
        self._refuse_when_discarded()
        handle = TimerHandle(self.time() + delay, callback, args, self, context)
        if delay <= 0:
            self._ready.append(handle)
        else:
            self._timekeeper.timer_set(handle, delay)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """Run *callback* at a moment of ``time()``: a durable timer."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        self._timekeeper.timer_cancelled(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop."""
        return WorkflowFuture(self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Run a coroutine as a task of this loop."""
        assert isinstance(coro, Coroutine)
        if self._discarded:
            coro.close()
            self._refuse_when_discarded()
        task = WorkflowTask(coro, self, name, context)
        # A strong reference: when the garbage collector comes by must not decide how a workflow goes on.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=_NO_CONTEXT)
        return task

    def _refuse_when_discarded(self) -> None:
        # Passes through `except Exception` and ends the coroutine that is being closed, as if it had never woken.
        if self._discarded:
            raise GeneratorExit

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Pass an exception that nobody looks at to whoever logs."""
        if not self._discarded:
            self._timekeeper.went_wrong(context)

    default_exception_handler = call_exception_handler

    def get_exception_handler(self) -> None:
        """There is none to be had: exceptions that nobody looks at are logged."""
        return

    def get_debug(self) -> bool:
        """Debug mode is always off: it would make behaviour depend on where a workflow runs."""
        return False

    def is_running(self) -> bool:
        """Whether this burst is under way."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Never, as far as a workflow can see."""
        return False

    def get_task_factory(self) -> None:
        """There is none."""
        return

    # -- asynchronous generators -----------------------------------------------------------------

    def asyncgen_finalizer(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Finish a generator that somebody left before its end; one that was discarded just disappears."""
        if not self._discarded:
            self.call_soon(self.create_task, generator.aclose())


_NO_CONTEXT = Context()


class _Running(AbstractContextManager[None]):
    """Makes a workflow's loop the running one, and its thread one that may not do I/O, for a ``with`` block."""

    __slots__ = ("_before", "_driving", "_hooks", "_loop")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._before = asyncio._get_running_loop()
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._loop.asyncgen_finalizer)
        asyncio._set_running_loop(self._loop)
        self._driving = driving()
        self._driving.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._driving.__exit__(kind, error, traceback)
        asyncio._set_running_loop(self._before)
        sys.set_asyncgen_hooks(*self._hooks)


def _close(coroutine: Any) -> None:
    for _ in range(CLOSES_MAX):
        try:
            coroutine.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" not in str(error):
                return  # It ended with an exception, which is as good an end as any.
        except BaseException:  # noqa: BLE001 - whatever code that is thrown away raises concerns nobody
            return
        else:
            return


_REMEDIES = {
    "run_in_executor": "threads",
    "set_default_executor": "threads",
    "getaddrinfo": "name resolution",
    "getnameinfo": "name resolution",
    "subprocess_exec": "subprocesses",
    "subprocess_shell": "subprocesses",
    "create_connection": "network connections",
    "create_server": "network connections",
    "create_datagram_endpoint": "network connections",
    "create_unix_connection": "network connections",
    "create_unix_server": "network connections",
    "add_signal_handler": "signal handlers",
    "remove_signal_handler": "signal handlers",
}


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: WorkflowLoop, *args: object, **kwargs: object) -> NoReturn:
        for argument in args:
            if asyncio.iscoroutine(argument):
                argument.close()
        raise WorkflowIOError(_REMEDIES.get(name, f"loop.{name}()"))

    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in WorkflowLoop.__dict__:
        setattr(WorkflowLoop, _name, _refusal(_name))
