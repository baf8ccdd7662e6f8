"""One process's end of the hub: connected or not, with everything that ends when the connection does."""

import asyncio
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any, TypeVar

from aiki.adapters.broker.memory.hub import MemoryHub
from aiki.adapters.broker.memory.notices import MemoryNoticeSubscription
from aiki.adapters.broker.memory.queues import MemoryQueue, MemorySubscription
from aiki.codec.messages import build_schemas, encode_answer, encode_dead_letter, encode_events, encode_query
from aiki.engine.commands import Command, DeadLetter, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query
from aiki.errors import BrokerError, BrokerUnavailableError, PublishUncertainError, QueryTimeoutError
from aiki.ports.broker import Broker, NoticeSubscription, Request, Subscription

__all__ = ["MemoryBroker"]

T = TypeVar("T")

_ADDRESSES = count(1)


class MemoryBroker(Broker):
    """A broker in memory. It can be cut off from its hub, and then behaves as any that lost its connection."""

    def __init__(self, hub: MemoryHub) -> None:
        self.address = f"memory-{next(_ADDRESSES)}"
        self._hub = hub
        self._open = False
        self._news = asyncio.Event()
        """Set while connected, and at the end, for those who wait for either."""
        self._subscriptions: dict[MemorySubscription[Any], None] = {}
        """A set that remembers the order: they are lost in that of being made."""
        self._publishing: set[asyncio.Future[None]] = set()
        self._asking: dict[str, asyncio.Future[Answer]] = {}
        self._questions = count(1)

    # The connection.

    @property
    def partitions(self) -> int:
        """How many partitions the hub has."""
        return self._hub.partitions

    @property
    def is_connected(self) -> bool:
        """Whether the hub can be reached right now."""
        return self._open and self._news.is_set()

    async def start(self) -> None:
        """Connect."""
        if not self._hub.is_reachable(self):
            raise BrokerUnavailableError("the broker in memory is stopped", hint="start its hub")
        build_schemas()  # Before anybody waits for a message.
        self._open = True
        self._hub.enter(self)
        self.connect()

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        if not self._open:
            return
        self.lose_connection("the broker was closed")
        self._open = False
        self._news.set()
        await self._hub.leave(self)

    def connect(self) -> None:
        """Be connected from now on, if the hub can be reached."""
        if self._open and self._hub.is_reachable(self):
            self._news.set()

    def lose_connection(self, why: str) -> None:
        """Be disconnected from now on: subscriptions are lost, and so is the certainty about what is under way."""
        self._news.clear()
        for subscription in tuple(self._subscriptions):
            subscription.lose(why)
        for publishing in self._publishing:
            _fail(publishing, PublishUncertainError(f"{why} before what was published was stored"))
        for asking in self._asking.values():
            _fail(asking, BrokerUnavailableError(f"{why} before the answer came"))

    async def _connection(self, timeout: float | None = None) -> None:
        """Wait until connected. The hot path does not wait at all."""
        if self.is_connected:
            return
        try:
            async with asyncio.timeout(timeout):
                while self._open and not self.is_connected:
                    await self._news.wait()
        except TimeoutError:
            raise BrokerUnavailableError(
                f"no connection to the broker within {timeout:g} s; nothing was sent"
            ) from None
        if not self._open:
            raise BrokerUnavailableError("the broker is closed, or was never started")

    # What everybody may do.

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        """Put *events* into the queue of *partition*; with durable confirms, wait until they are acknowledged."""
        queue = self._hub.events(partition)
        encode_events(events, bytes_max=self._hub.message_bytes_max)
        await self._put_safely(queue, tuple(events), timeout=timeout)

    async def consume_notices(self, client: str) -> NoticeSubscription:
        """Subscribe to the notices for *client*."""
        await self._connection()
        subscription = MemoryNoticeSubscription(self._hub.notices, client, on_end=self._forget)
        self._remember(subscription)
        return subscription

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask any orchestrator. A query that nobody took in time is withdrawn."""
        encode_query(query, bytes_max=self._hub.message_bytes_max)
        await self._connection(timeout)
        correlation_id = str(next(self._questions))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asking[correlation_id] = answered
        message = self._hub.queries.put(Request(query, self.address, correlation_id))
        try:
            async with asyncio.timeout(timeout):
                return await answered
        except TimeoutError:
            raise QueryTimeoutError(timeout=timeout) from None
        finally:
            self._hub.queries.withdraw(message)
            del self._asking[correlation_id]

    def hear(self, correlation_id: str, answer: Answer) -> None:
        """Take an answer, unless nobody waits for it any more."""
        answered = self._asking.get(correlation_id)
        if answered is not None and not answered.done():
            answered.set_result(answer)

    # What workers may do.

    async def consume_commands(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        """Subscribe to the commands of *queues*."""
        return await self._subscribe([self._hub.commands(name) for name in queues], prefetch=prefetch)

    async def consume_control(self, worker: str) -> Subscription[NotifyWorker]:
        """Subscribe to what is said to *worker*."""
        await self._connection()
        queue = self._hub.open_control(worker)

        def on_end(ended: MemorySubscription[NotifyWorker]) -> None:
            self._hub.close_control(worker, queue)
            self._forget(ended)

        subscription = MemorySubscription([queue], prefetch=None, on_end=on_end)
        self._remember(subscription)
        return subscription

    async def park(self, letter: DeadLetter, *, timeout: float) -> None:
        """Put *letter* with the dead letters; with durable confirms, wait until it is acknowledged."""
        encode_dead_letter(letter)
        await self._put_safely(self._hub.dead_letters, letter, timeout=timeout)

    # What orchestrators may do.

    async def consume_events(self, partition: int, *, prefetch: int) -> Subscription[tuple[Event, ...]]:
        """Stand in line for *partition*."""
        return await self._subscribe([self._hub.events(partition)], prefetch=prefetch)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        """Send *commands*, all or none. What they lead to is not waited for, durable confirms or not."""
        ready = [self._hub.prepare(command) for command in commands]
        await self._connection(timeout)
        for put in ready:
            put()
        await asyncio.sleep(0)

    async def backlog(self, queue: str, *, timeout: float) -> int | None:
        """Tell how many commands wait in *queue*, exactly."""
        await self._connection(timeout)
        return self._hub.depth(queue)

    async def consume_dead_letters(self, *, prefetch: int) -> Subscription[DeadLetter]:
        """Subscribe to the dead letters."""
        return await self._subscribe([self._hub.dead_letters], prefetch=prefetch)

    async def redeliver(self, letter: DeadLetter, *, timeout: float) -> None:
        """Put the original message of *letter* into the queue where it was found."""
        await self._connection(timeout)
        self._hub.inject(letter.origin, letter.body.encode())

    async def consume_queries(self, *, prefetch: int) -> Subscription[Request]:
        """Subscribe to the queries."""
        return await self._subscribe([self._hub.queries], prefetch=prefetch)

    async def answer(self, request: Request, answer: Answer) -> None:
        """Answer *request*. An answer that is too large to be carried is refused here."""
        encode_answer(answer, bytes_max=self._hub.message_bytes_max)
        await self._connection()
        self._hub.reply(request, answer)

    # What these have in common.

    async def _subscribe(self, queues: Sequence[MemoryQueue[T]], *, prefetch: int) -> MemorySubscription[T]:
        await self._connection()
        subscription = MemorySubscription(queues, prefetch=prefetch, on_end=self._forget)
        self._remember(subscription)
        return subscription

    def _remember(self, subscription: MemorySubscription[Any]) -> None:
        self._subscriptions[subscription] = None

    def _forget(self, subscription: MemorySubscription[Any]) -> None:
        self._subscriptions.pop(subscription, None)

    async def _put_safely(self, queue: MemoryQueue[T], value: T, *, timeout: float) -> None:
        """Put *value* into *queue* and wait until it is as safe as this hub says it has to be."""
        await self._connection(timeout)
        if not self._hub.durable_confirms:
            queue.put(value)
            await asyncio.sleep(0)
            return

        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publishing.add(settled)
        queue.put(value, settled=settled)
        try:
            async with asyncio.timeout(timeout):
                await settled
        except TimeoutError:
            raise PublishUncertainError(f"what was published was not stored within {timeout:g} s") from None
        finally:
            self._publishing.discard(settled)


def _fail(future: asyncio.Future[Any], error: BrokerError) -> None:
    if not future.done():
        future.set_exception(error)
