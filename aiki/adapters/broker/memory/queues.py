"""Queues and subscriptions: who gets which message, and where it goes when they do not deal with it.

Everything here happens between two turns of the event loop: a message is moved by
whoever puts it, acknowledges it or leaves, and no task or timer is involved.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from aiki.errors import DeliveryLostError, UndecodableError
from aiki.ports.broker import Delivery, Subscription

__all__ = ["MemoryQueue", "MemorySubscription", "Message"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Message(Generic[T]):
    """One message in a queue, or held by a subscription."""

    value: T | None
    raw: bytes | None = None
    """What was put past the codec; decoded when it is first delivered."""
    settled: asyncio.Future[None] | None = None
    """Done when somebody has acknowledged the message."""
    redelivered: bool = False


class MemoryQueue(Generic[T]):
    """Messages in order, and the subscriptions that share them.

    With *single_active*, only the subscription that has waited longest gets any.
    """

    def __init__(
        self,
        name: str,
        *,
        decode: Callable[[bytes], T],
        park: Callable[[str, bytes, UndecodableError], None],
        single_active: bool = False,
    ) -> None:
        self.name = name
        self.held = 0
        self._decode = decode
        self._park = park
        self._single_active = single_active
        self._ready: deque[Message[T]] = deque()
        self._subscriptions: deque[MemorySubscription[T]] = deque()
        self._pumping = False

    @property
    def ready(self) -> tuple[T | bytes | None, ...]:
        """What waits, as it was put."""
        return tuple(message.value if message.raw is None else message.raw for message in self._ready)

    def put(self, value: T, *, settled: asyncio.Future[None] | None = None) -> Message[T]:
        """Add *value* at the end; *settled* is done once it was acknowledged."""
        message = Message(value, settled=settled)
        self._ready.append(message)
        self.pump()
        return message

    def put_raw(self, body: bytes) -> None:
        """Add a body that nobody has looked at."""
        self._ready.append(Message(None, raw=body))
        self.pump()

    def take_back(self, messages: Sequence[Message[T]]) -> None:
        """Put back what was delivered and not acknowledged, in the order of its delivery."""
        self.held -= len(messages)
        # As in a real broker: before what nobody had yet, and behind what others had put back before.
        waiting = list(self._ready)
        earlier = [message for message in waiting if message.redelivered]
        self._ready = deque([*earlier, *messages, *waiting[len(earlier) :]])
        for message in messages:
            message.redelivered = True

    def settle(self, message: Message[T]) -> None:
        """Forget a message that somebody has dealt with."""
        self.held -= 1
        if message.settled is not None and not message.settled.done():
            message.settled.set_result(None)

    def withdraw(self, message: Message[T]) -> None:
        """Remove a message that still waits; one that was delivered already stays."""
        if message in self._ready:
            self._ready.remove(message)

    def clear(self) -> None:
        """Lose everything that waits."""
        self._ready.clear()

    def join(self, subscription: "MemorySubscription[T]") -> None:
        """Let *subscription* have its share."""
        self._subscriptions.append(subscription)
        self.pump()

    def leave(self, subscription: "MemorySubscription[T]") -> None:
        """Give *subscription* nothing more; whoever is next may get all the more after a ``pump``."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def pump(self) -> None:
        """Hand over what waits to who has room."""
        if self._pumping:  # An unreadable dead letter is parked in the very queue that it came from.
            return
        self._pumping = True
        try:
            while self._ready and (subscription := self._next()) is not None:
                message = self._ready.popleft()
                if message.raw is None or self._is_decoded(message, message.raw):
                    self.held += 1
                    subscription.hand_over(self, message)
        finally:
            self._pumping = False

    def _next(self) -> "MemorySubscription[T] | None":
        for _ in range(1 if self._single_active else len(self._subscriptions)):
            if not self._subscriptions:
                return None
            subscription = self._subscriptions[0]
            if not self._single_active:
                self._subscriptions.rotate(-1)
            if subscription.has_room:
                return subscription
        return None

    def _is_decoded(self, message: Message[T], raw: bytes) -> bool:
        try:
            message.value = self._decode(raw)
        except UndecodableError as error:
            self._park(self.name, raw, error)
            return False
        message.raw = None
        return True


class MemorySubscription(Subscription[T]):
    """Deliveries from one or several queues, at most *prefetch* of them unacknowledged."""

    def __init__(
        self,
        queues: Sequence[MemoryQueue[T]],
        *,
        prefetch: int | None,
        on_end: Callable[["MemorySubscription[T]"], None],
    ) -> None:
        self._queues = deque(queues)
        self._prefetch = prefetch
        self._on_end = on_end
        self._tags = count(1)
        self._arrived: deque[Delivery[T]] = deque()
        self._unacknowledged: dict[int, tuple[MemoryQueue[T], Message[T]]] = {}
        self._news = asyncio.Event()
        self._lost: str | None = None
        for queue in queues:
            queue.join(self)

    @property
    def has_room(self) -> bool:
        """Whether one more may be delivered."""
        return self._prefetch is None or len(self._unacknowledged) < self._prefetch

    @property
    def names(self) -> str:
        """The queues that it takes from."""
        return ", ".join(queue.name for queue in self._queues)

    def hand_over(self, queue: MemoryQueue[T], message: Message[T]) -> None:
        """Take a message from *queue*, and have it at once."""
        # The queue has read the message before it offers it, so the value is there.
        self.arrive(Delivery(message.value, message.redelivered, self.take(queue, message)))  # type: ignore[arg-type]

    def take(self, queue: MemoryQueue[T], message: Message[T]) -> int:
        """Be responsible for a message of *queue* from now on; tells its tag."""
        tag = next(self._tags)
        self._unacknowledged[tag] = (queue, message)
        return tag

    def arrive(self, delivery: Delivery[T]) -> None:
        """Let ``receive`` have a delivery."""
        self._arrived.append(delivery)
        self._news.set()

    async def receive(self) -> Sequence[Delivery[T]]:
        """Wait for deliveries and take all that have arrived."""
        # As with a real broker, others get their turn even if the next delivery is there already.
        await asyncio.sleep(0)
        while not self._arrived:
            self.check()
            self._news.clear()
            await self._news.wait()
        taken = list(self._arrived)
        self._arrived.clear()
        return taken

    async def acknowledge(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Forget *deliveries*, and make room for as many."""
        self.check()
        self.settle(deliveries)

    def settle(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Forget those of *deliveries* that are still held here."""
        for delivery in deliveries:
            held = self._unacknowledged.pop(delivery.tag, None)
            if held is not None:
                queue, message = held
                queue.settle(message)
        self._pump()

    async def stop(self) -> None:
        """Take nothing more."""
        self.leave()

    def leave(self) -> None:
        """Let others have what comes from now on."""
        self._leave()
        self._pump()

    async def close(self) -> None:
        """Give back what is not acknowledged."""
        self.lose("the subscription was closed")

    def lose(self, why: str) -> None:
        """End the subscription, with everything that it holds."""
        if self._lost is not None:
            return
        self._lost = why
        self._leave()
        for queue in self._queues:
            queue.take_back([message for origin, message in self._unacknowledged.values() if origin is queue])
        self._unacknowledged.clear()
        self._arrived.clear()
        self._on_end(self)
        self._pump()
        self._news.set()

    def check(self) -> None:
        """Make sure that it is still there.

        Raises:
            DeliveryLostError: it is not.
        """
        if self._lost is not None:
            raise DeliveryLostError(
                f"{self._lost}: {self.names}",
                hint="subscribe again; what was delivered and not acknowledged is delivered again",
            )

    def _leave(self) -> None:
        for queue in self._queues:
            queue.leave(self)

    def _pump(self) -> None:
        # Each time another queue comes first, or one that is always full would starve the others.
        self._queues.rotate(-1)
        for queue in self._queues:
            queue.pump()
