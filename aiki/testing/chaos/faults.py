"""What goes wrong in a chaos run: kinds of faults, each with how it begins and how it is healed.

A fault is drawn from the seed: its kind, whom it hits and how long it lasts. When
exactly it hits what is under way is up to the machine, so a seed repeats the plan and
not the history.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Literal, NamedTuple

from pymongo.errors import PyMongoError

from aiki.testing.chaos.client import WIPED
from aiki.testing.chaos.cluster import Broker, Cluster, Service, wipe
from aiki.testing.chaos.gates import Gate, Way
from aiki.testing.servers import MongoNode, ServerNode
from broker_topology import partition_queue

__all__ = ["KINDS", "Fault", "Kind", "draw_faults", "lock_of"]

# Longer than a broker waits for heartbeats that are sent every two seconds.
LONG_SECONDS = 7.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong."""

    pause: float
    """Seconds after the fault before it began."""
    kind: str
    size: float
    """From 0 to 1: how long it lasts."""
    target: int
    """Whom it hits, modulo how many there are."""

    def lasts(self, shortest: float, longest: float) -> float:
        """Spread the size over orders of magnitude, between two durations."""
        return float(shortest * (longest / shortest) ** self.size)


Where = Literal["worker", "orchestrator", "client", "broker", "store"]

Strike = Callable[[Cluster, Fault], Awaitable[str]]
"""Lets it happen and heals it; tells whom it hit."""


class Kind(NamedTuple):
    """A kind of fault."""

    weight: int
    where: Where
    strike: Strike


def lock_of(cluster: Cluster, fault: Fault) -> asyncio.Lock:
    """Tell what is held while *fault* lasts: nobody is hit twice, and no majority of servers is lost by chance."""
    match KINDS[fault.kind].where:
        case "broker":
            return cluster.broker_lock
        case "store":
            return cluster.store_lock
        case kind:
            return _one_of(cluster, kind, fault).lock


def draw_faults(random: Random, *, kinds: Sequence[str], every: float) -> list[Fault]:
    """Draw a fault of each of *kinds* in random order, then more of them; *every* so many seconds one begins."""
    weights = [KINDS[kind].weight for kind in kinds]
    rare = [kind for kind in kinds if not KINDS[kind].weight]
    usual = [kind for kind in kinds if KINDS[kind].weight]
    order = random.sample(usual, len(usual)) + random.choices(list(kinds), weights, k=2000)
    for kind in rare:
        order.insert(random.randrange(len(usual) // 2, len(usual) + 1), kind)
    return [
        Fault(round(random.uniform(0.2, 2 * every - 0.2), 3), kind, round(random.random(), 3), random.randrange(60))
        for kind in order
    ]


# -- our own processes -------------------------------------------------------------------------------


def _one_of(cluster: Cluster, kind: str, fault: Fault) -> Service:
    services = cluster.of_kind(kind)
    return services[fault.target % len(services)]


async def _kill(kind: str, cluster: Cluster, fault: Fault) -> str:
    service = _one_of(cluster, kind, fault)
    await asyncio.to_thread(service.kill)
    await asyncio.sleep(fault.lasts(0.05, 3.0))
    await asyncio.to_thread(service.start)
    return service.name


async def _restart(kind: str, cluster: Cluster, fault: Fault) -> str:
    service = _one_of(cluster, kind, fault)
    await asyncio.to_thread(service.restart)
    return service.name


async def _freeze(kind: str, longest: float, cluster: Cluster, fault: Fault) -> str:
    service = _one_of(cluster, kind, fault)
    await _frozen(service, fault.lasts(longest / 10, longest))
    return service.name


async def _frozen(server: ServerNode, seconds: float) -> None:
    server.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        server.thaw()


async def _cut(kind: str, cluster: Cluster, fault: Fault) -> str:
    """Reset all connections to the brokers; nothing stands in the way of new ones."""
    service = _one_of(cluster, kind, fault)
    for gate in service.gates:
        gate.cut()
    return service.name


async def _isolate(kind: str, way: Way, cluster: Cluster, fault: Fault) -> str:
    """Let nothing pass between a process and all brokers, in one direction or both. Nobody is told."""
    service = _one_of(cluster, kind, fault)
    await _held(service.gates, way, fault.lasts(0.3, LONG_SECONDS))
    return service.name


async def _held(gates: Sequence[Gate], way: Way, seconds: float) -> None:
    for gate in gates:
        gate.hold(way)
    try:
        await asyncio.sleep(seconds)
    finally:
        for gate in gates:
            gate.release()


async def _burst(cluster: Cluster, fault: Fault) -> str:
    """Fill the queues: a client starts hundreds of runs at once."""
    client = _one_of(cluster, "client", fault)
    if client.process is not None:
        client.process.send(signal.SIGUSR1)
    return client.name


# -- brokers -----------------------------------------------------------------------------------------


def _a_broker(cluster: Cluster, fault: Fault) -> tuple[int, Broker]:
    number = fault.target % len(cluster.brokers)
    return number, cluster.brokers[number]


async def _kill_broker(cluster: Cluster, fault: Fault) -> str:
    _, broker = _a_broker(cluster, fault)
    await _killed(broker, fault)
    return broker.node_name


async def _killed(server: ServerNode, fault: Fault) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(fault.lasts(0.1, 3.0))
    await asyncio.to_thread(server.start)


async def _kill_leader(cluster: Cluster, fault: Fault) -> str:
    """Kill the node where the leader of a partition's queue is."""
    queue = partition_queue(fault.target % 8)
    broker = await asyncio.to_thread(_leader_of, cluster, queue)
    await _killed(broker, fault)
    return f"{broker.node_name}, leader of {queue}"


def _leader_of(cluster: Cluster, queue: str) -> Broker:
    name = f'{{resource,<<"/">>,queue,<<"{queue}">>}}'
    answer = cluster.brokers[0].evaluate(
        f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), {{_, Node}} = amqqueue:get_pid(Q), Node"
    )
    return next((broker for broker in cluster.brokers if broker.node_name in answer), cluster.brokers[0])


async def _restart_broker(cluster: Cluster, fault: Fault) -> str:
    _, broker = _a_broker(cluster, fault)
    await asyncio.to_thread(broker.restart)
    return broker.node_name


async def _freeze_broker(cluster: Cluster, fault: Fault) -> str:
    _, broker = _a_broker(cluster, fault)
    await _frozen(broker, fault.lasts(0.5, 6.0))
    await asyncio.to_thread(broker.wait_until_ready)
    return broker.node_name


async def _part_broker(way: Way, cluster: Cluster, fault: Fault) -> str:
    """Let nothing pass between all of our processes and one broker."""
    number, broker = _a_broker(cluster, fault)
    await _held(cluster.gates_to(number), way, fault.lasts(0.5, LONG_SECONDS))
    return broker.node_name


async def _shut_broker(cluster: Cluster, fault: Fault) -> str:
    """Cut all connections to one broker, and refuse new ones."""
    number, broker = _a_broker(cluster, fault)
    await _shut(cluster.gates_to(number), fault.lasts(0.3, 5.0))
    return broker.node_name


async def _shut(gates: Sequence[Gate], seconds: float) -> None:
    for gate in gates:
        gate.shut()
    try:
        await asyncio.sleep(seconds)
    finally:
        for gate in gates:
            gate.reopen()


async def _slow_broker(cluster: Cluster, fault: Fault) -> str:
    number, broker = _a_broker(cluster, fault)
    await _slow(cluster.gates_to(number), fault)
    return broker.node_name


async def _slow(gates: Sequence[Gate], fault: Fault) -> None:
    for gate in gates:
        gate.delay = fault.lasts(0.01, 0.3)
    try:
        await asyncio.sleep(3.0)
    finally:
        for gate in gates:
            gate.delay = 0.0


async def _black_out_brokers(cluster: Cluster, fault: Fault) -> str:
    """Kill all brokers at once, and start them on what they had written."""
    await asyncio.gather(*(asyncio.to_thread(broker.kill) for broker in cluster.brokers))
    await cluster.start_brokers()
    return "all"


async def _wipe_brokers(cluster: Cluster, fault: Fault) -> str:
    """Lose all brokers with their data, and make the queues again from what the stores say."""
    gates = [gate for service in cluster.services.values() for gate in service.gates]
    for gate in gates:
        gate.shut()
    try:
        await asyncio.gather(*(asyncio.to_thread(broker.kill) for broker in cluster.brokers))
        for broker in cluster.brokers:
            wipe(broker)
        await cluster.start_brokers()
        await cluster.settle_topology()
    finally:
        for gate in gates:
            gate.reopen()
    await cluster.run_command("rebuild", "--yes")
    (cluster.history / WIPED).touch()
    return "all"


# -- stores ------------------------------------------------------------------------------------------


def _a_store(cluster: Cluster, fault: Fault) -> MongoNode:
    members = cluster.replicas.members
    return members[fault.target % len(members)]


async def _the_primary(cluster: Cluster) -> tuple[MongoNode, Gate]:
    primary = await asyncio.to_thread(cluster.replicas.wait_for_primary)
    return primary, cluster.store_gates[cluster.replicas.members.index(primary)]


async def _kill_primary(cluster: Cluster, fault: Fault) -> str:
    member, _ = await _the_primary(cluster)
    await _killed(member, fault)
    return member.folder.name


async def _kill_store(cluster: Cluster, fault: Fault) -> str:
    member = _a_store(cluster, fault)
    await _killed(member, fault)
    return member.folder.name


async def _step_down(cluster: Cluster, fault: Fault) -> str:
    member, _ = await _the_primary(cluster)
    await asyncio.to_thread(_order, member, "replSetStepDown", 5, force=True)
    return member.folder.name


def _order(member: MongoNode, command: str, value: int = 1, **options: Any) -> None:
    """Tell a member to do what makes it close its connections, ours among them."""
    with member.client() as client:
        try:
            client.admin.command(command, value, **options)
        except PyMongoError:
            return  # That is how it obeys; or it cannot, because it is no primary any more.


async def _freeze_primary(cluster: Cluster, fault: Fault) -> str:
    member, _ = await _the_primary(cluster)
    await _frozen(member, fault.lasts(0.5, LONG_SECONDS))
    return member.folder.name


async def _restart_store(cluster: Cluster, fault: Fault) -> str:
    member = _a_store(cluster, fault)
    # A signal would let it wait for a quarter of a minute, in which clients are to turn away.
    await asyncio.to_thread(_order, member, "shutdown", timeoutSecs=1)
    await asyncio.to_thread(member.restart)
    return member.folder.name


async def _part_primary(way: Way, cluster: Cluster, fault: Fault) -> str:
    """Let nothing pass between the primary and everybody else who would talk to it."""
    member, gate = await _the_primary(cluster)
    await _held([gate], way, fault.lasts(0.5, LONG_SECONDS))
    return member.folder.name


async def _shut_primary(cluster: Cluster, fault: Fault) -> str:
    member, gate = await _the_primary(cluster)
    await _shut([gate], fault.lasts(0.3, 5.0))
    return member.folder.name


async def _slow_store(cluster: Cluster, fault: Fault) -> str:
    member, gate = await _the_primary(cluster)
    await _slow([gate], fault)
    return member.folder.name


async def _black_out_stores(cluster: Cluster, fault: Fault) -> str:
    """Kill all members at once, and start them on what they had written."""
    members = cluster.replicas.members
    await asyncio.gather(*(asyncio.to_thread(member.kill) for member in members))
    for member in members:
        await asyncio.to_thread(member.start)
    await asyncio.to_thread(cluster.replicas.wait_for_primary)
    return "all"


KINDS: Mapping[str, Kind] = {
    "worker-kill": Kind(8, "worker", partial(_kill, "worker")),
    "worker-freeze": Kind(5, "worker", partial(_freeze, "worker", 2.0)),
    "worker-freeze-long": Kind(3, "worker", partial(_freeze, "worker", 12.0)),
    "worker-restart": Kind(4, "worker", partial(_restart, "worker")),
    "worker-cut": Kind(6, "worker", partial(_cut, "worker")),
    "worker-isolated": Kind(4, "worker", partial(_isolate, "worker", Way.BOTH)),
    "worker-one-way": Kind(3, "worker", partial(_isolate, "worker", Way.BACK)),
    "orchestrator-kill": Kind(8, "orchestrator", partial(_kill, "orchestrator")),
    "orchestrator-freeze": Kind(4, "orchestrator", partial(_freeze, "orchestrator", 2.0)),
    "orchestrator-freeze-long": Kind(3, "orchestrator", partial(_freeze, "orchestrator", 12.0)),
    "orchestrator-restart": Kind(4, "orchestrator", partial(_restart, "orchestrator")),
    "orchestrator-cut": Kind(6, "orchestrator", partial(_cut, "orchestrator")),
    "orchestrator-isolated": Kind(3, "orchestrator", partial(_isolate, "orchestrator", Way.BOTH)),
    "orchestrator-one-way": Kind(3, "orchestrator", partial(_isolate, "orchestrator", Way.THERE)),
    "client-kill": Kind(4, "client", partial(_kill, "client")),
    "client-cut": Kind(4, "client", partial(_cut, "client")),
    "client-isolated": Kind(2, "client", partial(_isolate, "client", Way.BOTH)),
    "burst": Kind(6, "client", _burst),
    "broker-kill": Kind(2, "broker", _kill_broker),
    "broker-leader-kill": Kind(2, "broker", _kill_leader),
    "broker-restart": Kind(2, "broker", _restart_broker),
    "broker-freeze": Kind(3, "broker", _freeze_broker),
    "broker-parted": Kind(3, "broker", partial(_part_broker, Way.BOTH)),
    "broker-one-way": Kind(2, "broker", partial(_part_broker, Way.BACK)),
    "broker-shut": Kind(3, "broker", _shut_broker),
    "broker-slow": Kind(2, "broker", _slow_broker),
    "broker-black-out": Kind(1, "broker", _black_out_brokers),
    "broker-wipe": Kind(0, "broker", _wipe_brokers),
    "store-primary-kill": Kind(4, "store", _kill_primary),
    "store-kill": Kind(3, "store", _kill_store),
    "store-step-down": Kind(4, "store", _step_down),
    "store-primary-freeze": Kind(3, "store", _freeze_primary),
    "store-restart": Kind(3, "store", _restart_store),
    "store-parted": Kind(3, "store", partial(_part_primary, Way.BOTH)),
    "store-one-way": Kind(2, "store", partial(_part_primary, Way.BACK)),
    "store-shut": Kind(3, "store", _shut_primary),
    "store-slow": Kind(2, "store", _slow_store),
    "store-black-out": Kind(1, "store", _black_out_stores),
}
"""All kinds, and how often they are drawn relative to each other. Those of weight 0 come once, if they come at all."""
