"""Faults: what goes wrong in a simulation, when, and to whom.

A fault belongs to a step: the n-th time that any process asks something of the world, or the
n-th time that one asks for what the fault aims at. So a list of faults can be read, written
down and shortened, and what is left of it still means the same.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from aiki.testing.simulation.loop import Process
from aiki.testing.simulation.network import Fate
from aiki.testing.simulation.world import Member, World

__all__ = ["KINDS", "UNCERTAIN", "Fault", "Injector", "draw_faults"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a step."""

    step: int
    kind: str
    size: float
    """From 0 to 1: how long it lasts, or which of several it hits, as the kind says."""
    aim: str = ""
    """What alone counts as a step; empty: everything."""

    def __str__(self) -> str:
        return f"{self.step}{'@' * bool(self.aim)}{self.aim}:{self.kind}:{self.size:.3f}"

    @classmethod
    def load(cls, text: str) -> "Fault":
        """Read what ``str`` has written."""
        when, kind, size = text.split(":")
        step, _, aim = when.partition("@")
        return cls(int(step), kind, float(size), aim)


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


def _die_halfway(world: World, member: Member, size: float) -> Fate:
    """Die while the other end does only some of what it is asked for."""
    world.kill(member, after=_seconds(size, 20.0))
    return Fate(partial=True)


def _die_late(world: World, member: Member, size: float) -> Fate:
    """Die, and be heard only when nobody expects it any more."""
    world.kill(member, after=_seconds(1 - size, 20.0))
    return Fate(delay=_seconds(size, 60.0))


def _lose_machine(world: World, member: Member, size: float) -> Fate:
    world.kill(member, after=_seconds(size, 60.0), silently=True)
    return Fate(arrives=size < 0.5)


def _freeze(world: World, member: Member, size: float) -> None:
    world.freeze(member, seconds=_seconds(size, 120.0))


def _disconnect(world: World, member: Member, size: float) -> None:
    world.disconnect(member)


def _cut_off(world: World, member: Member, size: float) -> None:
    world.cut_off(member, seconds=_seconds(size, 90.0))


def _sever(world: World, member: Member, size: float) -> None:
    """Cut off for long: a lease runs out meanwhile."""
    world.cut_off(member, seconds=10.0 + 80.0 * size)


def _part(world: World, member: Member, size: float) -> None:
    """Cut off all workers while something is said to the runs that they hold."""
    world.part(seconds=_seconds(size, 20.0))


def _lose_orders(world: World, member: Member, size: float) -> None:
    world.lose_orders()


def _lose_holder(world: World, member: Member, size: float) -> Fate:
    world.lose_holder(member, after=_seconds(size, 20.0))
    return Fate()


def _lag(world: World, member: Member, size: float) -> None:
    world.lag(member, seconds=3600.0 * (1 + size))


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


def _slow_down(world: World, member: Member, size: float) -> Fate:
    return Fate(delay=_seconds(size, 5.0))


def _restart_broker(world: World, member: Member, size: float) -> None:
    world.restart_broker(seconds=_seconds(size, 20.0))


def _wipe_broker(world: World, member: Member, size: float) -> None:
    world.wipe_broker(seconds=_seconds(size, 20.0))


def _wipe_unheard(world: World, member: Member, size: float) -> None:
    """Lose the broker with what it had confirmed while no orchestrator could hear of it."""
    for other in list(world.members.values()):
        if "orchestrator" in other.parts:
            world.cut_off(other, seconds=_seconds(size, 60.0))
    world.loop.later(_seconds(size, 30.0), lambda: world.wipe_broker(seconds=_seconds(1 - size, 2.0)))


def _wipe_late(world: World, member: Member, size: float) -> Fate:
    """Lose the broker, and who wrote what it had heard of; that arrives when the run has been begun anew."""
    late = _seconds(0.6 + 0.4 * size, 60.0)
    world.kill(member, after=0.5)
    world.wipe_broker(seconds=0.5)
    world.loop.later(late + 0.5, lambda: world.restart_broker(seconds=0.1))
    return Fate(delay=late)


def _lose_store(world: World, member: Member, size: float) -> None:
    world.lose_store(seconds=_seconds(size, 20.0))


def _step_clock(world: World, member: Member, size: float) -> None:
    world.step_clock(member, seconds=(size - 0.5) * 40.0)


def _terminate(world: World, member: Member, size: float) -> None:
    world.end(member)


KINDS: Mapping[str, Strike] = {
    "kill-before": _kill_before,
    "kill-after": _kill_after,
    "kill-other": _kill_other,
    "die-halfway": _die_halfway,
    "die-late": _die_late,
    "lose-machine": _lose_machine,
    "freeze": _freeze,
    "disconnect": _disconnect,
    "cut-off": _cut_off,
    "sever": _sever,
    "part": _part,
    "lose-orders": _lose_orders,
    "lose-holder": _lose_holder,
    "lag": _lag,
    "break": _break,
    "lose-request": _lose_request,
    "lose-answer": _lose_answer,
    "partly": _do_partly,
    "twice": _do_twice,
    "hold-up": _hold_up,
    "slow": _slow_down,
    "restart-broker": _restart_broker,
    "wipe-broker": _wipe_broker,
    "wipe-unheard": _wipe_unheard,
    "wipe-late": _wipe_late,
    "lose-store": _lose_store,
    "step-clock": _step_clock,
    "terminate": _terminate,
}
"""What each kind of fault does."""

UNCERTAIN = frozenset({"die-halfway", "die-late", "partly", "hold-up", "lose-answer", "slow", "wipe-late"})
"""After these nobody knows whether, or when, something was written."""


def _says(*names: str) -> Callable[[str], bool]:
    opened = tuple(f"{name}(" for name in names)
    return lambda what: what.startswith(">") and any(name in what for name in opened)


AIMS: Mapping[str, Callable[[str], bool]] = {
    "": lambda what: True,
    "order": _says("ExecuteRun", "ExecuteTask"),
    "start": _says("RunStarted"),
    "fact": _says("JournalAppended", "TaskScheduled"),
    "end": _says("RunSuspended", "RunCompleted", "RunFailed"),
    "rest": _says("RunSuspended"),
    "word": _says("RunRequested", "SignalSent", "CancelRequested", "PauseRequested", "ResumeRequested"),
    "telling": _says("SignalSent", "CancelRequested", "PauseRequested"),
    "orphan": _says("RunOrphaned"),
    "lease": _says("LeaseRenewed"),
    "timer": _says("TimerFired"),
    "finish": _says("TaskFinished", "AnnounceOutcome"),
    "commit": lambda what: what.startswith("store.commit"),
    # What changes a run because of what was learnt: two writes, of which one may work and the other not.
    "lesson": lambda what: what.startswith("store.commit") and "learns+moves" in what,
    "taken": lambda what: what.startswith("acknowledge") and "aiki.events" in what,
}
"""What faults may aim at."""


def draw_faults(random: Random, kinds: Mapping[str, int], numbers: tuple[int, ...]) -> list[Fault]:
    """Draw what goes wrong in one simulation: of *kinds*, which may be aimed (``partly@commit``), by their weights."""
    names = list(kinds)
    weights = list(kinds.values())
    horizon = random.choice((30, 60, 100))
    faults: list[Fault] = []
    for _ in range(random.choice(numbers)):
        kind, _, aim = random.choices(names, weights)[0].partition("@")
        # Of what is aimed at there is less.
        step = random.randint(1, random.choice((1, 3, 8, 20)) if aim else horizon)
        faults.append(Fault(step, kind, round(random.random(), 3), aim))
    return sorted(faults, key=lambda fault: fault.step)


class Injector:
    """Lets faults happen at their steps."""

    def __init__(self, world: World, faults: list[Fault]) -> None:
        self._world = world
        self._faults: dict[tuple[str, int], list[Fault]] = {}
        for fault in faults:
            self._faults.setdefault((fault.aim, fault.step), []).append(fault)
        self._aims = {aim: AIMS[aim] for aim in dict.fromkeys(fault.aim for fault in faults)}
        self._steps: Counter[str] = Counter()
        self.struck: list[Fault] = []
        """What has happened so far."""
        self._last = max((fault.step for fault in faults if not fault.aim), default=0)

    @property
    def is_done(self) -> bool:
        """Whether all of it has happened, but for what aims at something that may never come."""
        return self._world.network.steps >= self._last

    def on_step(self, number: int, process: Process, what: str) -> Fate | None:
        """Let happen what belongs to this step."""
        fate: Fate | None = None
        for aim, is_meant in self._aims.items():
            if is_meant(what):
                self._steps[aim] += 1
                for fault in self._faults.get((aim, self._steps[aim]), ()):
                    fate = self._strike(fault, process) or fate
        return fate

    def _strike(self, fault: Fault, process: Process) -> Fate | None:
        member = next(member for member in self._world.members.values() if member.process is process)
        self._world.network.say("world", f"! {fault}")
        self.struck.append(fault)
        return KINDS[fault.kind](self._world, member, fault.size)
