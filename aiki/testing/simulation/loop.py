"""The event loop of a simulation: one thread, virtual time, and processes that can die or freeze between two steps.

Time passes only when nothing else can happen, and then jumps to the next timer. What
runs is a function of what was asked for, so the same seed gives the same run.
"""

import asyncio
from asyncio.events import Handle
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["Process", "SimulationLoop", "SimulationStuckError", "running_process"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Some ten times what a simulation takes: more means that something goes round in circles.
STEPS_MAX = 500_000


class SimulationStuckError(Exception):
    """Nothing is ever going to happen again, or something happens for ever."""


class Process:
    """What dies together: the steps of one simulated process are those that run in its context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.held_back: list[_Step] = []
        """The steps that it did not get to. Of the dead they are kept too: what is dropped would be cleaned up."""

    def __repr__(self) -> str:
        return self.name

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin *work* in this process."""
        context = copy_context()
        context.run(_PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def die(self) -> None:
        """Take no further step, not even to clean up."""
        self.is_dead = True

    def freeze(self) -> None:
        """Take no step until thawed."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Take the steps that were held back, in order, and all others."""
        self.is_frozen = False
        if not self.is_dead:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimulationLoop)
            loop.take_up(self.held_back)
            self.held_back = []


_PROCESS: ContextVar[Process | None] = ContextVar("simulated process", default=None)


def running_process() -> Process | None:
    """Tell whose step is being taken; ``None``: the world's own."""
    return _PROCESS.get()


class _Future(asyncio.Future[T]):
    """A future that has the same place in a set in every run of a seed."""

    _number = 0

    def __hash__(self) -> int:
        # Few are ever put into a set; numbered when they are, they are numbered in the same order in every run.
        if not self._number:
            self._number = _loop_of(self).next_number()
        return self._number


class _Task(asyncio.Task[T]):
    """A task that has the same place in a set in every run of a seed."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        loop: "SimulationLoop",
        name: str | None = None,
        context: Context | None = None,
    ) -> None:
        self._number = number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or f"Task-{number}", context=context)

    def __hash__(self) -> int:
        return self._number


def _nothing() -> None:
    """Be what a step does that is not taken."""


class _Step(asyncio.TimerHandle):
    """A step to take: a handle as asyncio's own, made without asking each time whether somebody debugs."""

    __slots__ = ()

    # What asyncio's own handles keep, and say nothing of to type checkers.
    _context: Context

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "SimulationLoop",
        context: Context,
    ) -> None:
        self._context = context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False

    def cancel(self) -> None:
        """Do not take it; one that waits for its time is dropped when that comes."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()


class SimulationLoop(asyncio.BaseEventLoop):
    """An event loop without I/O, in which waiting takes no time."""

    # What asyncio's own loops keep, and say nothing of to type checkers.
    _ready: deque[_Step]
    _scheduled: list[tuple[float, int, _Step]]
    """A heap. Timers that are due together are in the order of asking, and are compared without calling anything."""
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.is_over = False
        """Once set, nothing that is asked for is done: what is left is only being cleaned away."""
        self._now = 0.0
        self._numbers = 0
        self._timers = 0
        self._outside = copy_context()

    def time(self) -> float:
        """Tell the seconds since the simulation began."""
        return self._now

    def next_number(self) -> int:
        """Number what sets order by."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> "asyncio.Future[Any]":
        """Make a future."""
        return _Future(loop=self)

    def create_task(  # type: ignore[override]  # the base class takes generators as well, which nobody here has
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[T]":
        """Begin a task."""
        return _Task(coro, self, name, context)

    def later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
        """Call *callback* after *delay*, as a step of nobody: of a network, a server, the world."""
        return self._schedule(self._now + delay, callback, args, self._outside)

    def take_up(self, handles: list[_Step]) -> None:
        """Let steps that were held back be taken now."""
        self._ready.extend(handles)

    # These do what asyncio's own do, without looking each time whether somebody debugs, or calls from a thread.

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Handle:
        """Take a step soon."""
        step = _Step(0.0, callback, args, self, context or copy_context())
        if not self.is_over:
            self._ready.append(step)
        return step

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Take a step after *delay*."""
        return self._schedule(self._now + delay, callback, args, context or copy_context())

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Take a step at *when*."""
        return self._schedule(when, callback, args, context or copy_context())

    def _schedule(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> asyncio.TimerHandle:
        step = _Step(when, callback, args, self, context)
        if not self.is_over:
            self._timers += 1
            heappush(self._scheduled, (when, self._timers, step))
        return step

    def _run_once(self) -> None:
        """Take steps, and let time pass whenever none is ready, until somebody stops that."""
        ready, process_of = self._ready, _PROCESS
        while not self._stopping:
            self._move_time()
            for _ in range(len(ready)):
                step = ready.popleft()
                context = step._context
                process = context.get(process_of)
                if process is not None and (process.is_dead or process.is_frozen):
                    process.held_back.append(step)
                elif not step._cancelled:
                    try:
                        context.run(step._callback, *step._args)
                    except Exception as error:  # noqa: BLE001 - whoever watches is told
                        self.call_exception_handler({"message": f"Exception in {step}", "exception": error})

    def _move_time(self) -> None:
        """Let time pass until a step is ready, if none is."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and (not ready or scheduled[0][0] <= self._now):
            when, _, timer = heappop(scheduled)
            if not timer._cancelled:
                if when > self._now:
                    self._now = when
                ready.append(timer)
        if not ready:
            raise SimulationStuckError("nothing is ever going to happen again")
        self.steps += len(ready)
        if self.steps > STEPS_MAX:
            raise SimulationStuckError(f"it is not over after {STEPS_MAX:,} steps")

    def _write_to_self(self) -> None:
        """Wake nobody up: there is one thread."""


def _loop_of(future: "asyncio.Future[Any]") -> SimulationLoop:
    loop = future.get_loop()
    assert isinstance(loop, SimulationLoop)
    return loop
