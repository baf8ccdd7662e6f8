"""The broker: where messages wait until somebody has dealt with them.

Three roles, as three protocols, so that no part can do more than it should: a
client states facts and asks, a worker also takes orders, an orchestrator gives
them. A message that cannot be decoded never reaches a subscriber: the adapter
parks it as a dead letter, with the reason, and goes on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from aiki.engine.commands import Command, DeadLetter, Notice, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query

__all__ = [
    "Broker",
    "ClientBroker",
    "Delivery",
    "NoticeSubscription",
    "OrchestratorBroker",
    "Request",
    "Subscription",
    "WorkerBroker",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivery(Generic[T]):
    """One message as it was handed over. It stays the broker's until it is acknowledged."""

    body: T
    redelivered: bool
    """The broker handed it to somebody before, who may have begun with it."""
    tag: int
    """The subscription's own name for it."""


class Subscription(Protocol[T]):
    """A stream of deliveries, tied to one connection: when that is lost, so is the subscription.

    There is no silent resubscription: whoever consumes has to know the moment, because
    everything that was delivered and not acknowledged now belongs to somebody else.
    """

    async def receive(self) -> Sequence[Delivery[T]]:
        """Wait for deliveries and take all that have arrived, at least one, in order.

        Raises:
            DeliveryLostError: the subscription is gone (connection lost, or closed).
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Tell the broker that *deliveries* have been dealt with.

        Raises:
            DeliveryLostError: the subscription is gone; they are going to be delivered again.
        """
        ...

    async def stop(self) -> None:
        """Take nothing more.

        What was delivered can still be acknowledged, and ``receive`` still hands out what has arrived.
        """
        ...

    async def close(self) -> None:
        """End the subscription; what is not acknowledged goes back to its queue at once."""
        ...


class NoticeSubscription(Subscription[Notice], Protocol):
    """The notices for one client: those addressed to it, and those of the runs that it watches."""

    async def watch(self, run_id: str) -> None:
        """Hear of *run_id* from now on; returns once every later notice is sure to arrive here."""
        ...

    async def unwatch(self, run_id: str) -> None:
        """Stop hearing of *run_id*, unless it is addressed to this client."""
        ...


class ClientBroker(Protocol):
    """What an application needs: to state facts, to ask, to hear of outcomes.

    Subscribing waits for a connection, however long that takes. Once closed, a broker raises
    ``BrokerUnavailableError`` for whatever is asked of it.
    """

    @property
    def partitions(self) -> int:
        """How many partitions the events are spread over."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be spoken to right now."""
        ...

    async def start(self) -> None:
        """Connect. From then on a lost connection is made again by itself, for ever, with jitter.

        Raises:
            BrokerUnavailableError: it cannot be reached, or refuses the credentials or the virtual host.
        """
        ...

    async def close(self) -> None:
        """Disconnect. Every subscription is closed; safe to call twice."""
        ...

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        """Keep *events* for the owner of *partition*, as one message; returns once they are safe.

        Safe: they survive the crash of everybody who knows them. Calls for one partition that
        follow each other arrive in that order. Waits for a connection, up to *timeout* seconds.

        Raises:
            BrokerUnavailableError: nothing was sent.
            PublishUncertainError: they may have arrived; sending them again is right, and harmless.
            UnroutableError: the partition has no queue.
            PayloadTooLargeError: the message is larger than the broker should carry.
        """
        ...

    async def consume_notices(self, client: str) -> NoticeSubscription:
        """Subscribe to the notices for the address *client*. They are not kept while nobody listens."""
        ...

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask any orchestrator.

        Raises:
            BrokerUnavailableError, QueryTimeoutError: there is no answer; asking again is harmless.
        """
        ...


class WorkerBroker(ClientBroker, Protocol):
    """What a worker needs besides: to take orders."""

    async def consume_commands(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        """Subscribe to the commands of *queues* (declared if missing), at most *prefetch* unacknowledged in all."""
        ...

    async def consume_control(self, worker: str) -> Subscription[NotifyWorker]:
        """Subscribe to what is said to *worker* alone. It is not kept while the worker is away."""
        ...

    async def park(self, letter: DeadLetter, *, timeout: float) -> None:
        """Keep *letter* with the dead letters; returns once it is safe. Raises as ``publish_events``."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A query, and where its answer goes."""

    query: Query
    reply_to: str
    correlation_id: str


class OrchestratorBroker(ClientBroker, Protocol):
    """What an orchestrator needs besides: to own partitions, to give orders, to answer."""

    async def consume_events(self, partition: int, *, prefetch: int) -> Subscription[tuple[Event, ...]]:
        """Stand in line for *partition*; only one subscriber at a time gets deliveries, the longest waiting one.

        The first delivery of a subscription says nothing of when it became the active one.
        """
        ...

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        """Send *commands* in one window; returns once all are safe.

        A command whose queue is missing declares it and is sent again. Notices and
        ``NotifyWorker`` are for whoever listens and may fall on deaf ears.

        Raises:
            BrokerUnavailableError: nothing was sent.
            PublishUncertainError: any of them may have arrived. ``ExecuteRun`` must not be sent again.
        """
        ...

    async def backlog(self, queue: str, *, timeout: float) -> int | None:
        """Tell how many commands wait in *queue* for a worker with room; ``None`` if there is no such queue.

        What was delivered and is not acknowledged yet does not count. The number may be some seconds old.

        Raises:
            BrokerUnavailableError: it cannot be told at present.
        """
        ...

    async def consume_dead_letters(self, *, prefetch: int) -> Subscription[DeadLetter]:
        """Subscribe to the dead letters, to put them where they can be listed."""
        ...

    async def redeliver(self, letter: DeadLetter, *, timeout: float) -> None:
        """Put the original message of *letter* into the queue where it was found. Raises as ``send``."""
        ...

    async def consume_queries(self, *, prefetch: int) -> Subscription[Request]:
        """Subscribe to the queries; each goes to one orchestrator."""
        ...

    async def answer(self, request: Request, answer: Answer) -> None:
        """Answer *request*. Whoever asked may be gone; that is no error."""
        ...


class Broker(WorkerBroker, OrchestratorBroker, Protocol):
    """All roles in one: what an adapter implements."""
