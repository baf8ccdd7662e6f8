"""The network of a simulation: everything that a process does to the world passes through here, and may go wrong.

A request takes a while to arrive and its answer a while to come back. A process that
dies or freezes meanwhile changes nothing of that: what is under way arrives.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from aiki.errors import AikiError
from aiki.testing.simulation.loop import Process, SimulationLoop

__all__ = ["Fate", "Link", "LinkLostError", "Network"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Seconds. Most of the time the network of a data centre, now and then one that is busy.
LATENCY_MIN, LATENCY, BUSY_LATENCY = 0.0001, 0.001, 0.05

# What faults aim at. What is said of presence, and asked by nobody in particular, would only dilute them.
STEPS = (">", "acknowledge", "subscribe", "store.commit", "store.load", "store.journal", "store.due")
TIDYING = ("PresenceNoted", "aiki.queries")

# Two things never arrive in the same moment: the order of timers that are due together is no order.
MOMENT = 1e-7


class LinkLostError(Exception):
    """The connection is gone; whether what was asked for was done is unknown."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request."""

    delay: float = 0.0
    """How much longer than usual it takes to arrive."""
    arrives: bool = True
    answered: bool = True
    twice: bool = False
    partial: bool = False
    """Only some of it is done (where that is possible), and the answer says that it failed."""
    breaks: bool = False
    """The connection is lost while it is under way."""


_USUAL, _LOST = Fate(), Fate(arrives=False)

OnStep = Callable[[int, Process, str], Fate | None]
"""Decides about the n-th request; ``None``: nothing special."""


@dataclass(slots=True)
class Network:
    """Carries requests, and keeps the trace."""

    loop: SimulationLoop
    random: Random
    trace: list[str] = field(default_factory=list)
    is_traced: bool = True
    steps: int = 0
    busy_share: float = 0.02
    """How often something takes its time."""
    busy_until: float = 0.0
    """When the last of what was held up arrives."""
    on_step: OnStep = lambda number, process, what: None

    def say(self, who: object, what: str) -> None:
        """Write a line of the trace."""
        if self.is_traced:
            self.trace.append(f"{self.loop.time():12.6f} {who!s:<16} {what}")

    def latency(self) -> float:
        """Draw how long something is under way."""
        draw = self.random.random
        longest = BUSY_LATENCY if draw() < self.busy_share else LATENCY
        return LATENCY_MIN + (longest - LATENCY_MIN) * draw()

    def fate(self, process: Process, what: str) -> Fate:
        """Decide what becomes of a request; count it, if it is one of those that a run depends on."""
        if process.is_dead:
            return _LOST
        if not what.startswith(STEPS) or what.endswith(TIDYING):
            return _USUAL
        self.steps += 1
        return self.on_step(self.steps, process, what) or _USUAL


class Link:
    """One connection of one process: what is sent on it arrives in the order of sending."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network = network
        self.process = process
        self._last_arrival = 0.0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._generation = 0
        self._is_swallowed = False

    async def call(
        self,
        what: str,
        do: Callable[[], T],
        *,
        on_break: Callable[[], None],
        partly: Callable[[], object] | None = None,
        outlives: bool = True,
    ) -> T:
        """Have *do* done at the other end, and give what it returns or raises.

        *partly* does some of it, where the fate is so; *on_break* is told that the connection has to go.
        Without *outlives*, what is under way makes no sense any more when the connection is gone.

        Raises:
            LinkLostError: nobody knows whether it was done.
        """
        network = self.network
        if network.is_traced:
            network.say(self.process, what)
        fate = network.fate(self.process, what)
        answer: asyncio.Future[T] = network.loop.create_future()
        number = network.loop.next_number()
        self._waiting[number] = answer
        self._send(fate, outlives, self._arrive, fate, do, partly, answer)
        if fate.breaks:
            on_break()
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    def post(self, what: str, do: Callable[[], object], *, on_break: Callable[[], None]) -> None:
        """Have *do* done at the other end; nobody hears whether it was. If it is lost, so is the connection."""
        self.network.say(self.process, what)
        fate = self.network.fate(self.process, what)
        if fate.arrives:
            self._send(fate, False, do)
        if fate.breaks or fate.partial or not fate.arrives or not fate.answered:
            on_break()

    def back(self, do: Callable[[*Ts], object], *args: *Ts) -> None:
        """Let something come from the other end, unless the connection is lost before."""
        self.network.loop.later(self._delay(self.network.latency()), self._come_back, self._generation, do, args)

    def _come_back(self, generation: int, do: Callable[..., object], args: tuple[Any, ...]) -> None:
        if generation == self._generation:
            do(*args)

    def lose(self, *, swallow: bool) -> None:
        """Fail what waits for an answer; with *swallow*, what is under way does not arrive."""
        self._generation += 1
        self._is_swallowed = swallow
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkLostError())

    def _send(self, fate: Fate, outlives: bool, do: Callable[[*Ts], object], *args: *Ts) -> None:
        # What is held up was sent on a connection that is lost meanwhile: others overtake it.
        delay = fate.delay or self._delay(self.network.latency())
        if fate.delay:
            self.network.busy_until = max(self.network.busy_until, self.network.loop.time() + delay)
        self.network.loop.later(delay, self._deliver, self._generation, outlives, do, args)

    def _deliver(self, generation: int, outlives: bool, do: Callable[..., object], args: tuple[Any, ...]) -> None:
        if generation == self._generation or (outlives and not self._is_swallowed):
            with suppress(AikiError):
                do(*args)

    def _delay(self, latency: float) -> float:
        """Tell how long something is under way that may not overtake what went before."""
        now = self.network.loop.time()
        self._last_arrival = max(self._last_arrival + MOMENT, now + latency)
        return self._last_arrival - now

    def _arrive(
        self, fate: Fate, do: Callable[[], T], partly: Callable[[], object] | None, answer: "asyncio.Future[T]"
    ) -> None:
        if fate.partial and partly is not None:
            partly()
        if not fate.arrives or fate.partial:
            self.network.loop.later(self.network.latency(), _settle, answer, None, LinkLostError())
            return
        value: T | None = None
        error: Exception | None = None
        try:
            value = do()
            if fate.twice:
                do()
        except AikiError as raised:
            error = raised
        if not fate.answered:
            error = LinkLostError()
        self.network.loop.later(self.network.latency(), _settle, answer, value, error)


def _settle(answer: "asyncio.Future[Any]", value: object, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)
