"""What a topology is made of: frozen values, comparable and printable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

__all__ = [
    "Argument",
    "Binding",
    "Exchange",
    "Permission",
    "Policy",
    "Queue",
    "Role",
    "TopicPermission",
    "Topology",
]

Argument = str | int | bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange. All of ours are durable."""

    name: str
    kind: Literal["direct", "fanout", "topic"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and its arguments. One that is not durable belongs to one connection and goes with it."""

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    durable: bool = True

    @property
    def kind(self) -> str:
        """Tell the type of the queue: ``quorum`` or ``classic``."""
        return str(self.arguments["x-queue-type"])


@dataclass(frozen=True, slots=True)
class Binding:
    """What arrives at *exchange* with *routing_key* goes to *queue*."""

    exchange: str
    queue: str
    routing_key: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """Exchanges, queues and bindings that belong together, in the order of declaring them."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: "Topology") -> "Topology":
        """Put two topologies together."""
        return Topology(self.exchanges + other.exchanges, self.queues + other.queues, self.bindings + other.bindings)


class Role(StrEnum):
    """Who speaks to the broker, and therefore may do what."""

    CLIENT = "client"  # An application: states facts, asks, hears of outcomes.
    WORKER = "worker"  # Executes: besides, takes orders from the queues of its workflows.
    ORCHESTRATOR = "orchestrator"  # Decides: owns the partitions, gives the orders.
    OPERATOR = "operator"  # Sets up and repairs: `aiki topology apply`, the management UI.
    MONITOR = "monitor"  # Looks on: the monitoring API, and no message.


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may configure, write to and read from: regular expressions over names, as RabbitMQ has them."""

    role: Role
    configure: str
    write: str
    read: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """Which routing keys a role may publish with (write) and bind with (read) on a topic exchange."""

    role: Role
    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: settings that operators may change without declaring anything anew."""

    name: str
    pattern: str
    definition: Mapping[str, Argument]
    apply_to: Literal["queues", "exchanges", "all"] = "queues"
    priority: int = 0
