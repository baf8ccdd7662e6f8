"""Faults: what goes wrong in a simulation, when, and to whom.

A fault belongs to a step: the n-th time that any process asks something of the world.
So a list of faults can be read, written down and shortened, and what is left of it
still means the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from aiki.testing.simulation.loop import Process
from aiki.testing.simulation.network import Fate
from aiki.testing.simulation.world import Member, World

__all__ = ["KINDS", "Fault", "Injector", "draw_faults"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a step."""

    step: int
    kind: str
    size: float
    """From 0 to 1: how long it lasts, or which of several it hits, as the kind says."""

    def __str__(self) -> str:
        return f"{self.step}:{self.kind}:{self.size:.3f}"

    @classmethod
    def load(cls, text: str) -> "Fault":
        """Read what ``str`` has written."""
        step, kind, size = text.split(":")
        return cls(int(step), kind, float(size))


Strike = Callable[[World, Member, float], Fate | None]
"""Lets it happen, when the given member asks something of the world; may decide what becomes of that."""


def _seconds(size: float, longest: float) -> float:
    """Spread a size over orders of magnitude: from 5 ms."""
    return float(0.005 * (longest / 0.005) ** size)


def _kill_before(world: World, member: Member, size: float) -> Fate:
    world.kill(member, after=_seconds(size, 20.0))
    return Fate(arrives=False)


def _kill_after(world: World, member: Member, size: float) -> Fate:
    world.kill(member, after=_seconds(size, 20.0))
    return Fate()


def _kill_other(world: World, member: Member, size: float) -> None:
    others = [other for other in world.members.values() if other.is_up]
    if others:
        world.kill(others[int(size * len(others)) % len(others)], after=_seconds(size, 5.0))


def _lose_machine(world: World, member: Member, size: float) -> Fate:
    world.kill(member, after=_seconds(size, 60.0), silently=True)
    return Fate(arrives=size < 0.5)


def _freeze(world: World, member: Member, size: float) -> None:
    world.freeze(member, seconds=_seconds(size, 120.0))


def _disconnect(world: World, member: Member, size: float) -> None:
    world.disconnect(member)


def _cut_off(world: World, member: Member, size: float) -> None:
    world.cut_off(member, seconds=_seconds(size, 90.0))


def _break(world: World, member: Member, size: float) -> Fate:
    return Fate(breaks=True)


def _lose_request(world: World, member: Member, size: float) -> Fate:
    return Fate(arrives=False)


def _lose_answer(world: World, member: Member, size: float) -> Fate:
    return Fate(answered=False)


def _do_partly(world: World, member: Member, size: float) -> Fate:
    return Fate(partial=True)


def _do_twice(world: World, member: Member, size: float) -> Fate:
    return Fate(twice=True)


def _hold_up(world: World, member: Member, size: float) -> Fate:
    return Fate(delay=_seconds(size, 40.0), breaks=True)


def _restart_broker(world: World, member: Member, size: float) -> None:
    world.restart_broker(seconds=_seconds(size, 20.0))


def _wipe_broker(world: World, member: Member, size: float) -> None:
    world.wipe_broker(seconds=_seconds(size, 20.0))


def _lose_store(world: World, member: Member, size: float) -> None:
    world.lose_store(seconds=_seconds(size, 20.0))


def _step_clock(world: World, member: Member, size: float) -> None:
    world.step_clock(member, seconds=(size - 0.5) * 40.0)


def _terminate(world: World, member: Member, size: float) -> None:
    world.end(member)


KINDS: dict[str, tuple[int, Strike]] = {
    "kill-before": (4, _kill_before),
    "kill-after": (6, _kill_after),
    "kill-other": (3, _kill_other),
    "lose-machine": (2, _lose_machine),
    "freeze": (5, _freeze),
    "disconnect": (3, _disconnect),
    "cut-off": (2, _cut_off),
    "break": (4, _break),
    "lose-request": (3, _lose_request),
    "lose-answer": (5, _lose_answer),
    "partly": (5, _do_partly),
    "twice": (3, _do_twice),
    "hold-up": (4, _hold_up),
    "restart-broker": (2, _restart_broker),
    "wipe-broker": (2, _wipe_broker),
    "lose-store": (2, _lose_store),
    "step-clock": (1, _step_clock),
    "terminate": (3, _terminate),
}
"""How often each kind of fault is drawn, relative to the others, and what it does."""


def draw_faults(random: Random) -> list[Fault]:
    """Draw what goes wrong in one simulation."""
    names = list(KINDS)
    weights = [KINDS[name][0] for name in names]
    number = random.choice((1, 2, 3, 4, 6, 8, 12))
    horizon = random.choice((30, 60, 100))
    faults = [
        Fault(random.randint(1, horizon), random.choices(names, weights)[0], round(random.random(), 3))
        for _ in range(number)
    ]
    return sorted(faults, key=lambda fault: fault.step)


class Injector:
    """Lets faults happen at their steps."""

    def __init__(self, world: World, faults: list[Fault]) -> None:
        self._world = world
        self._faults: dict[int, list[Fault]] = {}
        for fault in faults:
            self._faults.setdefault(fault.step, []).append(fault)
        self._last = max(self._faults, default=0)

    @property
    def is_done(self) -> bool:
        """Whether all of it has happened."""
        return self._world.network.steps >= self._last

    def on_step(self, number: int, process: Process, what: str) -> Fate | None:
        """Let happen what belongs to this step."""
        fate: Fate | None = None
        for fault in self._faults.get(number, ()):
            member = next(member for member in self._world.members.values() if member.process is process)
            fate = KINDS[fault.kind][1](self._world, member, fault.size) or fate
            self._world.network.say("world", f"! {fault}")
        return fate
