"""The broker port on RabbitMQ."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar
from uuid import uuid4

from aiki.adapters.broker.rabbitmq.asking import Askers
from aiki.adapters.broker.rabbitmq.declaring import declare_once, ensure, ready_messages
from aiki.adapters.broker.rabbitmq.incoming import (
    read_command,
    read_control,
    read_dead_letter_at,
    read_events,
    read_notice,
    read_request,
)
from aiki.adapters.broker.rabbitmq.link import Address, Link, addresses_of
from aiki.adapters.broker.rabbitmq.notices import RabbitNotices
from aiki.adapters.broker.rabbitmq.outgoing import (
    Outgoing,
    answer_message,
    command_message,
    dead_letter_message,
    event_messages,
    events_message,
    nudge_message,
    redelivered_message,
    timer_messages,
)
from aiki.adapters.broker.rabbitmq.partition import PartitionSubscription
from aiki.adapters.broker.rabbitmq.publisher import Publisher
from aiki.adapters.broker.rabbitmq.repairs import undeliverable
from aiki.adapters.broker.rabbitmq.sending import Sender
from aiki.adapters.broker.rabbitmq.shared import SharedSubscription
from aiki.adapters.broker.rabbitmq.silent import RenewedSubscription
from aiki.adapters.broker.rabbitmq.subscriber import Subscriber
from aiki.adapters.broker.rabbitmq.subscription import Arrival, RabbitSubscription, Refuse
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.adapters.broker.rabbitmq.waiting import Deadline, apart
from aiki.adapters.clock import SystemClock
from aiki.codec.messages import build_schemas, dead_letter_of, take_events_apart
from aiki.engine.commands import ArmTimer, Command, DeadLetter, NotifyWorker, SendEvent, WorkerCommand
from aiki.engine.events import Event, TimerFired
from aiki.engine.queries import Answer, Query
from aiki.errors import BrokerError, InvalidNameError, UndecodableError
from aiki.observability import get_logger
from aiki.ports.broker import Broker, NoticeSubscription, Request, Subscription
from aiki.ports.clock import Clock
from broker_topology import (
    DEAD_LETTERS,
    PARTITIONS_DEFAULT,
    QUERIES,
    QueueNameError,
    Topology,
    command_queue,
    control_queue,
    notice_queue,
    partition_queue,
    retry_name,
    retry_queue,
    topology,
)

__all__ = ["RabbitBroker"]

T = TypeVar("T")

log = get_logger(__name__)

HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 10.0

# What is not kept for anybody may still not flood a process that is slow to take it.
NOTICES_PREFETCH = 1000

# Longer than most changes of leaders take; what is looked for is found after one to three times as long. Nobody
# waits for this unless RabbitMQ lost something.
SILENCE_SECONDS = 5.0

ANSWER_SECONDS = 5.0
NUDGE_SECONDS = 10.0
PARK_SECONDS = 30.0


class RabbitBroker(Broker):
    """RabbitMQ as a broker: quorum queues, confirms, and one link that is watched over.

    * Nothing counts as sent before the broker confirmed it; then it survives what a quorum survives.
    * A partition is a queue with a single active consumer, so one subscriber at a time gets its events, in order.
    * When a connection is lost every subscription says so at once, and a new link is made by itself.
    * A delivery that RabbitMQ loses on its way comes again when its subscription has fallen silent.
    * A message that cannot be decoded goes to the dead letters, confirmed, before it is acknowledged.

    May be used by any number of tasks of one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        partitions: int = PARTITIONS_DEFAULT,
        name: str = "aiki",
        heartbeat: int = HEARTBEAT_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        silence: float = SILENCE_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        """Speak to the broker at *url*, or at several URLs separated by commas: the nodes of a cluster.

        *name* is what its connections are called in the management UI. After *silence* seconds without a delivery it
        is looked, once, whether one was lost. Nothing happens before ``start``.
        """
        self._url = url
        self._partitions = partitions
        self._name = name
        self._heartbeat = heartbeat
        self._connect_timeout = connect_timeout
        self._silence = silence
        self._clock = clock or SystemClock()
        self._topology = topology(partitions)
        self._supervisor = Supervisor(self._open_link)
        self._publisher = Publisher(self._supervisor, self._topology)
        self._sender = Sender(self._publisher, self._supervisor, self._topology)
        self._askers = Askers(self._supervisor)
        self._subscriber = Subscriber(self._supervisor, self._topology)

    @property
    def partitions(self) -> int:
        """How many partitions the events are spread over."""
        return self._partitions

    @property
    def is_connected(self) -> bool:
        """Whether both connections are there."""
        return self._supervisor.link is not None

    @property
    def server_version(self) -> tuple[int, ...] | None:
        """The version of the broker that we are connected to."""
        link = self._supervisor.link
        return None if link is None else link.version

    async def start(self) -> None:
        """Connect, and see to it that the topology is there."""
        build_schemas()  # Before anybody waits for a message.
        await self._supervisor.start(addresses_of(self._url))

    async def close(self) -> None:
        """Close the subscriptions, so that acknowledgements on their way arrive, then the connections."""
        self._supervisor.seal()
        await self._subscriber.close()
        await self._publisher.close()
        await self._askers.close()
        await self._supervisor.close()

    # What a client needs.

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        """Publish *events* as one message to the queue of *partition*."""
        if events:
            await self._sender.deliver((events_message(partition, events),), timeout=timeout)

    async def consume_notices(self, client: str) -> NoticeSubscription:
        """Subscribe through a queue of our own, bound with the client's address."""
        return await self._subscriber.subscribe_privately(
            lambda channel: RabbitNotices(channel, decode=read_notice, refuse=self._drop),
            _named("client", client, notice_queue),
            prefetch=NOTICES_PREFETCH,
        )

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask through ``aiki.queries``."""
        return await self._askers.ask(query, timeout=timeout)

    # What a worker needs besides.

    async def consume_commands(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        """Subscribe to several queues over one channel, the prefetch shared out among them."""
        names = list(dict.fromkeys(queues))
        layout = sum((_command_queue(name) for name in names), Topology())
        kind = RenewedSubscription[WorkerCommand] if len(names) == 1 else SharedSubscription[WorkerCommand]
        return await self._subscriber.subscribe(
            lambda channel: kind(channel, decode=read_command, refuse=self._park_undecodable, silence=self._silence),
            names,
            prefetch=prefetch,
            layout=layout,
        )

    async def consume_control(self, worker: str) -> Subscription[NotifyWorker]:
        """Subscribe through a queue of our own, bound with the worker's name."""
        return await self._subscriber.subscribe_privately(
            lambda channel: RabbitSubscription(channel, decode=read_control, refuse=self._park_undecodable),
            _named("worker", worker, control_queue),
            prefetch=NOTICES_PREFETCH,
        )

    async def park(self, letter: DeadLetter, *, timeout: float) -> None:
        """Publish *letter* to the dead letters."""
        await self._sender.deliver((dead_letter_message(letter),), timeout=timeout)

    # What an orchestrator needs besides.

    async def consume_events(self, partition: int, *, prefetch: int) -> Subscription[tuple[Event, ...]]:
        """Subscribe to the queue of *partition*, over a channel of its own."""
        return await self._subscriber.subscribe(
            lambda channel: PartitionSubscription(
                channel,
                decode=read_events,
                refuse=self._take_apart,
                silence=self._silence,
                nudge=lambda: self._sender.deliver((nudge_message(partition),), timeout=NUDGE_SECONDS),
            ),
            [partition_queue(partition)],
            prefetch=prefetch,
        )

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        """Publish *commands* in one window; those that no queue takes declare it and are sent again.

        A command for a queue that cannot exist is parked as a dead letter: it must not hold up the others.
        """
        deadline = Deadline(timeout)
        timers: list[TimerFired] = []
        messages: list[Outgoing] = []
        for command in commands:
            if isinstance(command, SendEvent) and isinstance(command.event, TimerFired):
                timers.append(command.event)
            else:
                messages.append(undeliverable(command, self._clock.now()) or command_message(command, self._partitions))
        messages += timer_messages(timers, self._partitions)
        delays = {command.delay_ms for command in commands if isinstance(command, ArmTimer)}
        for delay_ms in delays:
            link = await self._supervisor.current(timeout=deadline.left)
            await apart(declare_once(link, retry_name(delay_ms), retry_queue(delay_ms)))
        await self._sender.deliver(messages, timeout=deadline.left)

    async def backlog(self, queue: str, *, timeout: float) -> int | None:
        """Ask for the number of ready messages; that of a quorum queue may be some seconds old."""
        deadline = Deadline(timeout)
        link = await self._supervisor.current(timeout=deadline.left)
        return await apart(ready_messages(link, queue, timeout=deadline.left))

    async def consume_dead_letters(self, *, prefetch: int) -> Subscription[DeadLetter]:
        """Subscribe to ``aiki.dead-letters``, where what the broker itself gave up arrives too."""
        return await self._subscribe(DEAD_LETTERS, prefetch, read_dead_letter_at(self._clock.now), self._drop)

    async def redeliver(self, letter: DeadLetter, *, timeout: float) -> None:
        """Publish the original message straight to the queue where it was found."""
        await self._sender.deliver((redelivered_message(letter),), timeout=timeout)

    async def consume_queries(self, *, prefetch: int) -> Subscription[Request]:
        """Subscribe to ``aiki.queries``."""
        return await self._subscribe(QUERIES, prefetch, read_request, self._park_undecodable)

    async def answer(self, request: Request, answer: Answer) -> None:
        """Answer to the channel that asked, if it is still there."""
        try:
            await self._publisher.publish((answer_message(request, answer),), timeout=ANSWER_SECONDS)
        except BrokerError as error:
            log.info("query.not_answered", reason=error.message)  # Whoever asked asks again.

    # How it is done.

    async def _open_link(self, address: Address) -> Link:
        link = await Link.open(address, name=self._name, heartbeat=self._heartbeat, timeout=self._connect_timeout)
        try:
            await ensure(link, self._topology)
            await self._publisher.open(link)
        except BaseException:
            await link.close("it could not be used")
            raise
        return link

    async def _subscribe(
        self, queue: str, prefetch: int, decode: Callable[[Arrival], T], refuse: Refuse
    ) -> RabbitSubscription[T]:
        return await self._subscriber.subscribe(
            lambda channel: RenewedSubscription(channel, decode=decode, refuse=refuse, silence=self._silence),
            [queue],
            prefetch=prefetch,
        )

    async def _park_undecodable(self, arrival: Arrival, error: UndecodableError) -> None:
        letter = dead_letter_of(error, origin=arrival.queue, body=arrival.body, at=self._clock.now())
        await self.park(letter, timeout=PARK_SECONDS)

    async def _take_apart(self, arrival: Arrival, error: UndecodableError) -> None:
        """Send the events of a message again one by one: only the one that cannot be read is parked."""
        if parts := take_events_apart(arrival.body):
            await self._sender.deliver(event_messages(arrival.queue, parts), timeout=PARK_SECONDS)
        else:
            await self._park_undecodable(arrival, error)

    async def _drop(self, _arrival: Arrival, _error: UndecodableError) -> None:
        """Do nothing more about it: it is logged, was kept for nobody, and its receiver may park nothing."""


def _named(what: str, name: str, make: Callable[[str, str], Topology]) -> Callable[[], Topology]:
    """Lay out the queue for *name*, each time with something in its name that no other connection has.

    Raises:
        InvalidNameError: *name* cannot be part of a queue's name.
    """

    def layout() -> Topology:
        return make(name, uuid4().hex[:8])

    try:
        layout()
    except QueueNameError as error:
        raise InvalidNameError(what, error.name, reason=error.reason) from error
    return layout


def _command_queue(name: str) -> Topology:
    try:
        return command_queue(name)
    except QueueNameError as error:
        raise InvalidNameError("queue", error.name, reason=error.reason) from error
