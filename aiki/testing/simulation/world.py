"""The world of a simulation: servers, the processes on them, and everything that can happen to either."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiki.engine.commands import ExecuteRun, WorkerCommand
from aiki.engine.state import Pair
from aiki.orchestrator.stats import Stats
from aiki.ports.clock import Clock
from aiki.testing.simulation.broker import SimulatedBroker, SimulatedHub
from aiki.testing.simulation.loop import Process, SimulationLoop
from aiki.testing.simulation.network import Link, Network
from aiki.testing.simulation.profiles import Circumstances, circumstances_of
from aiki.testing.simulation.store import InlineStore, StoreLink, done_at_once

__all__ = ["START", "Member", "Order", "Role", "SimulatedClock", "World"]

START = datetime(2026, 1, 1, tzinfo=UTC)

# A broker notices that somebody is silent after two to three heartbeats of ten seconds.
SILENCE_NOTICED = (20.0, 30.0)

# What arrives within a millisecond is looked at together, in the order of its coming.
AT_ONCE = 0.001


class SimulatedClock(Clock):
    """A machine's own time, which may be wrong."""

    def __init__(self, loop: SimulationLoop, ahead: float = 0.0) -> None:
        self._loop = loop
        self.ahead = ahead
        """Seconds by which it is ahead of the time of the world."""

    def now(self) -> datetime:
        """Tell the time as this machine sees it."""
        seconds, milliseconds = divmod(int((self._loop.time() + self.ahead) * 1000), 1000)
        return START + timedelta(0, seconds, milliseconds * 1000)

    def monotonic(self) -> float:
        """Tell seconds that never go back."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(max(seconds, 0))


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it arrived at a process."""

    pair: Pair
    base_seq: int
    incarnation: str
    at: float
    """When it arrived."""


@dataclass(slots=True, eq=False)
class Member:
    """A process with its ends of the broker and of the store."""

    name: str
    role: "Role"
    process: Process
    broker: SimulatedBroker
    store: StoreLink
    clock: SimulatedClock
    parts: dict[str, Any] = field(default_factory=dict)
    """What the role wants others to see."""
    orders: dict[str, Order] = field(default_factory=dict)
    main: asyncio.Task[Any] | None = None
    generation: int = 1
    stood_still_until: float = 0.0
    """When it last went on after having been frozen."""

    @property
    def is_up(self) -> bool:
        """Whether it takes steps."""
        return not self.process.is_dead and not self.process.is_frozen


Role = Callable[["World", Member], Coroutine[Any, Any, None]]


class World:
    """Two servers, any number of processes."""

    def __init__(
        self, loop: SimulationLoop, random: Random, *, partitions: int, circumstances: Circumstances | None = None
    ) -> None:
        """Without *circumstances*, those of some seed that has nothing special."""
        self.loop = loop
        self.random = random
        self.circumstances = circumstances or circumstances_of(0)
        self.network = Network(loop, random)
        self.clock = SimulatedClock(loop)
        self.hub = SimulatedHub(clock=self.clock, partitions=partitions)
        self.store = InlineStore()
        self.members: dict[str, Member] = {}
        self.is_store_away = False
        self.is_broker_stopped = False
        self.was_wiped = False
        self.wiped_at = 0.0
        """When the broker lost its data last."""
        self.healed_at = math.inf
        """When everything that was broken was put right."""
        self.stats: list[Stats] = []
        """What each orchestrator counts, also those that are gone."""
        self.sweep_every = 30.0
        self.lost_at = 0.0
        """When the last of those was replaced that ended in whatever way: nobody may have been told."""
        self.faults: dict[str, int] = {}
        self.on_wipe: Callable[[], None] = lambda: None
        self.on_put: Callable[[Any], None] = lambda value: None
        """Is shown what a process other than an orchestrator got the broker to have."""
        self.on_settled: Callable[[Sequence[Any]], None] = lambda bodies: None
        """Is shown what an orchestrator acknowledged."""
        done_at_once(self.store.start())
        done_at_once(self.store.partitions(partitions))

    # -- processes -------------------------------------------------------------------------------

    def begin(self, name: str, role: Role, *, generation: int = 1, ahead: float | None = None) -> Member:
        """Start a process."""
        process = Process(f"{name}/{generation}")
        apart = self.circumstances.clocks_apart
        clock = SimulatedClock(self.loop, self.random.uniform(-apart, apart) if ahead is None else ahead)
        store = StoreLink(self.store, Link(self.network, process))
        store.is_away = lambda: self.is_store_away
        broker = SimulatedBroker(
            self.hub, Link(self.network, process), on_order=lambda order: _note_order(member, order, self.loop.time())
        )
        member = Member(name, role, process, broker, store, clock, generation=generation)
        self.members[name] = member
        self.network.say(process, "begins")
        member.main = process.spawn(self._live(member))
        return member

    async def _live(self, member: Member) -> None:
        """Be a process; one that cannot start is started again by whoever looks after it."""
        try:
            await member.role(self, member)
        except asyncio.CancelledError:
            self.network.say(member.process, "ends in order")
        except Exception as error:  # noqa: BLE001 - a supervisor starts it again, whatever it was
            self.network.say(member.process, f"ends: {error!r}")
        self.loop.later(0.5, lambda: self._succeed(member))

    def _succeed(self, member: Member) -> None:
        self.lost_at = self.loop.time()
        if self.members.get(member.name) is member:
            if not member.process.is_dead:
                member.process.die()
                member.broker.die()
            self.begin(member.name, member.role, generation=member.generation + 1, ahead=member.clock.ahead)

    def kill(self, member: Member, *, after: float, silently: bool = False) -> None:
        """End a process as ``kill -9`` does, and start another one *after* seconds.

        *silently*: its machine is gone, and the broker learns it only from the silence.
        """
        if member.process.is_dead:
            return
        self._note("kill", member)
        member.process.die()
        noticed = self.random.uniform(*SILENCE_NOTICED) if silently else self.random.uniform(0.0, 0.005)
        self.loop.later(noticed, member.broker.die)
        self.loop.later(max(after, 0.001), lambda: self._succeed(member))

    def freeze(self, member: Member, *, seconds: float) -> None:
        """Let a process take no step for a while. If that is long, the broker gives up on it."""
        if not member.is_up:
            return
        self._note(f"freeze for {seconds:.3f} s", member)
        member.process.freeze()
        noticed = self.random.uniform(*SILENCE_NOTICED)
        if seconds > noticed:
            self.loop.later(noticed, lambda: self._give_up_on(member))
        self.loop.later(seconds, lambda: self._thaw(member))

    def _give_up_on(self, member: Member) -> None:
        if not member.process.is_dead and member.process.is_frozen:
            self.hub.isolate(member.broker)

    def _thaw(self, member: Member) -> None:
        if not member.process.is_dead and member.process.is_frozen:
            self.network.say(member.process, "thaws")
            member.stood_still_until = self.loop.time()
            member.process.thaw()
            self.loop.later(self.random.uniform(0.0, 0.04), lambda: self.hub.rejoin(member.broker))

    def end(self, member: Member) -> None:
        """Ask a process to end, as a deployment does."""
        if member.is_up and member.main is not None:
            self._note("terminate", member)
            self.loop.later(0, member.main.cancel)

    # -- connections and servers -----------------------------------------------------------------

    def disconnect(self, member: Member) -> None:
        """Lose the connection of a process, which makes another one."""
        if not member.process.is_dead:
            self._note("disconnect", member)
            member.broker.lose_connection("the connection was lost", swallow=self.random.random() < 0.5)
            self.loop.later(self.random.uniform(0.001, 1.0), member.broker.connect)

    def cut_off(self, member: Member, *, seconds: float) -> None:
        """Let a process reach the broker no more, for a while."""
        if not member.process.is_dead:
            self._note(f"cut off for {seconds:.3f} s", member)
            self.hub.isolate(member.broker)
            self.loop.later(seconds, lambda: self._rejoin(member))

    def _rejoin(self, member: Member) -> None:
        if not member.process.is_frozen:
            self.hub.rejoin(member.broker)

    def restart_broker(self, *, seconds: float) -> None:
        """Stop the broker and start it again with all that it held."""
        if self.is_broker_stopped:
            return
        self._note("broker stops", None)
        self.is_broker_stopped = True
        self.hub.stop()
        self._swallow()
        self.loop.later(seconds, self._start_broker)

    def wipe_broker(self, *, seconds: float) -> None:
        """Lose the broker with its disk."""
        if self.is_broker_stopped:
            return
        self._note("broker is lost", None)
        self.is_broker_stopped = self.was_wiped = True
        self.wiped_at = self.loop.time()
        self.hub.lose_everything()
        self._swallow()
        self.on_wipe()
        self.loop.later(seconds, self._start_broker)

    def _swallow(self) -> None:
        for member in self.members.values():
            member.broker.link.lose(swallow=True)

    def _start_broker(self) -> None:
        if self.is_broker_stopped:
            self.network.say("world", "broker starts")
            self.is_broker_stopped = False
            self.hub.start()

    def part(self, *, seconds: float) -> None:
        """Let no worker reach the broker, for a while."""
        for member in list(self.members.values()):
            if "worker" in member.parts:
                self.cut_off(member, seconds=seconds)

    def lose_orders(self) -> None:
        """Let the broker lose all orders of runs, and nobody hear of it.

        That happens once: what a sweep has given again is not given again by another one.
        """
        if "orders are lost" not in self.faults:
            self._note("orders are lost", None)
            for name in self.hub.queue_names:
                self.hub.lose_orders(name)
            for member in self.members.values():
                member.broker.lose_orders()

    def lose_holder(self, member: Member, *, after: float) -> None:
        """End a process, and lose with it the orders that it holds."""
        member.broker.lose_orders()
        self.kill(member, after=after)

    def lag(self, member: Member, *, seconds: float) -> None:
        """Set the clock of a machine back by so much that nothing is due there any more; of one machine only."""
        if "lag" not in self.faults:
            self._note("lag", member)
            member.clock.ahead -= seconds

    def lose_store(self, *, seconds: float) -> None:
        """Let the store refuse everything, for a while."""
        self._note("store away", None)
        self.is_store_away = True
        self.loop.later(seconds, self._find_store)

    def _find_store(self) -> None:
        self.is_store_away = False

    def step_clock(self, member: Member, *, seconds: float) -> None:
        """Set the clock of a machine."""
        self._note(f"clock steps by {seconds:.3f} s", member)
        member.clock.ahead += seconds

    def heal(self) -> None:
        """Put everything right that was broken."""
        self.network.say("world", "heals")
        self.healed_at = self.loop.time()
        self.network.on_step = lambda number, process, what: None
        self._find_store()
        self._start_broker()
        for member in self.members.values():
            self._thaw(member)
            if not member.process.is_dead:
                self.hub.rejoin(member.broker)

    def _note(self, what: str, member: Member | None) -> None:
        kind = what.split(" for ", maxsplit=1)[0].split(" by ", maxsplit=1)[0]
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.network.say(member.process if member else "world", f"! {what}")


def _note_order(member: Member, order: WorkerCommand, now: float) -> None:
    """Note the order that *member* follows, and whose outcomes it therefore knows."""
    if not isinstance(order, ExecuteRun):
        return
    known, new = member.orders.get(order.run_id), Order(order.pair, order.base_seq, order.incarnation, now)
    is_late = known is not None and known.incarnation == new.incarnation and known.pair.epoch > new.pair.epoch
    if known is not None and is_late and (order.run_id in member.parts["worker"].held_runs or now - known.at < AT_ONCE):
        return  # It is handed back. What arrived at the same time is held by the time that this one is looked at.
    member.orders[order.run_id] = new
