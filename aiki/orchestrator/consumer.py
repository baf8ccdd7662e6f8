"""Consuming: subscribe, hand over what arrives, acknowledge; and begin again whenever the subscription is lost.

A subscription is tied to a connection. When it is gone, so is every delivery that
was not acknowledged: those come back, to whoever subscribes. So a handler is never
asked to save anything; whatever it could not finish it will see again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from aiki.errors import AikiError, BrokerError, DeliveryLostError
from aiki.observability import get_logger
from aiki.orchestrator.patience import Backoff, pause, unless_set
from aiki.orchestrator.stats import Stats
from aiki.ports.broker import Delivery, Subscription
from aiki.ports.clock import Clock

__all__ = ["Consumer"]

T = TypeVar("T")

log = get_logger(__name__)


def _whole(deliveries: Sequence[Delivery[T]]) -> Iterable[Sequence[Delivery[T]]]:
    return (deliveries,)


def _urgent(_deliveries: Sequence[Delivery[T]]) -> bool:
    return False


class Consumer(Generic[T]):
    """Consumes one queue until it is stopped, through every loss of the connection.

    *handle* is given what has arrived, in parts made by *split*; a part is acknowledged when
    *handle* returns. When it raises, nothing of the part is acknowledged, the subscription is
    closed, which gives everything back, and after a while there is a new one.

    What *may_wait* says so of is handed over together with what comes next, at most *company*
    seconds later, or when *company_max* messages have come together.
    """

    def __init__(
        self,
        name: str,
        *,
        subscribe: Callable[[], Coroutine[Any, Any, Subscription[T]]],
        handle: Callable[[Sequence[Delivery[T]]], Awaitable[None]],
        clock: Clock,
        backoff: Backoff,
        stats: Stats,
        on_first: Callable[[], None] = lambda: None,
        split: Callable[[Sequence[Delivery[T]]], Iterable[Sequence[Delivery[T]]]] = _whole,
        may_wait: Callable[[Sequence[Delivery[T]]], bool] = _urgent,
        company: float = 0.0,
        company_max: int = 1,
    ) -> None:
        self.name = name
        self.subscriptions = 0
        """How often it has subscribed: another place at the end of the line each time."""
        self.has_deliveries = False
        """Whether the present subscription was given something; before that, somebody else may be ahead in line."""
        self._subscribe = subscribe
        self._handle = handle
        self._clock = clock
        self._backoff = backoff
        self._stats = stats
        self._on_first = on_first
        self._split = split
        self._may_wait = may_wait
        self._company = company
        self._company_max = company_max
        self._subscription: Subscription[T] | None = None
        self._is_handling = False
        self._waiting: asyncio.Timeout | None = None
        self._is_leaving = False
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Consume until ``stop``; what is in hand then is finished and acknowledged."""
        try:
            while not self._stopping.is_set():
                if not await self._serve_once():
                    await pause(self._clock, self._backoff.delay(), unless=self._stopping)
        finally:
            self._finished.set()

    async def leave(self) -> None:
        """Give the subscription up for a new one, after what is in hand: whoever is next in line takes over."""
        self._is_leaving = True
        await self._close_if_idle()

    async def stop(self) -> None:
        """Take nothing more, and return when what is in hand is finished."""
        self._stopping.set()
        await self._close_if_idle()
        await self._finished.wait()

    async def _close_if_idle(self) -> None:
        # Closing under a handler would hand its deliveries to somebody else while it works on them.
        if self._waiting is not None:
            if not self._waiting.expired():  # What has come is in hand: it waits no longer.
                self._waiting.reschedule(asyncio.get_running_loop().time())
        elif self._subscription is not None and not self._is_handling:
            await self._close(self._subscription)

    async def _serve_once(self) -> bool:
        """Subscribe and serve until the subscription ends; tell whether it ended in order."""
        try:
            subscription = await unless_set(self._stopping, self._subscribe())
        except BrokerError as error:
            log.warning("consumer.cannot_subscribe", queue=self.name, error=error.message)
            return False
        if subscription is None:
            return True

        self._begin(subscription)
        try:
            return await self._serve(subscription)
        finally:
            self._subscription = None
            self.has_deliveries = False
            await self._close(subscription)

    def _begin(self, subscription: Subscription[T]) -> None:
        self._subscription = subscription
        self._is_leaving = False
        self.subscriptions += 1

    async def _serve(self, subscription: Subscription[T]) -> bool:
        try:
            while not self._is_over():
                deliveries = await subscription.receive()
                if self._is_over():
                    break  # Closed from outside while these were on their way: they go back, untouched.
                await self._take(subscription, await self._with_company(subscription, deliveries))
        except DeliveryLostError:
            if not self._is_over():
                self._stats.subscriptions_lost += 1
                log.info("consumer.subscription_lost", queue=self.name)
                return False
        except AikiError as error:
            log.warning("consumer.interrupted", queue=self.name, error=error.message, kind=type(error).__name__)
            return False
        except Exception:
            # A fault of ours must not end the service; the deliveries come back, and the log keeps saying so.
            log.exception("consumer.failed", queue=self.name)
            return False
        return True

    async def _with_company(
        self, subscription: Subscription[T], deliveries: Sequence[Delivery[T]]
    ) -> Sequence[Delivery[T]]:
        """Wait for what may be handled together with *deliveries*, unless somebody waits for what follows from them."""
        latest = deliveries
        if not (self._company and self._may_wait(latest)):
            return deliveries
        try:
            async with asyncio.timeout(self._company) as self._waiting:
                while self._may_wait(latest) and len(deliveries) < self._company_max:
                    latest = await subscription.receive()
                    deliveries = [*deliveries, *latest]
        except TimeoutError:
            pass
        finally:
            self._waiting = None
        return deliveries

    def _is_over(self) -> bool:
        return self._is_leaving or self._stopping.is_set()

    async def _take(self, subscription: Subscription[T], deliveries: Sequence[Delivery[T]]) -> None:
        if not self.has_deliveries:
            self.has_deliveries = True
            log.info("consumer.served", queue=self.name)
            self._on_first()
        self._is_handling = True
        self._stats.in_hand += len(deliveries)
        try:
            for part in self._split(deliveries):
                await self._handle(part)
                await subscription.acknowledge(part)
                self._backoff.reset()
                if self._is_over():
                    break
        finally:
            self._is_handling = False
            self._stats.in_hand -= len(deliveries)

    async def _close(self, subscription: Subscription[T]) -> None:
        with suppress(BrokerError):  # A lost connection has closed it already.
            await subscription.close()
