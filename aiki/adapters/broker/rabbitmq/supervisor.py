"""The supervisor: sees to it that there is a link, for as long as the broker is in use.

It is the only one that connects. When a link is lost it takes both connections
down and makes a new one, with pauses that grow and differ, so that a thousand
processes do not return at the same instant. It asks nobody to wait longer than
they want to: who needs a link says for how long.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle

from aiki.adapters.broker.rabbitmq.link import Address, Link
from aiki.asynchronous import end
from aiki.errors import AikiError, BrokerUnavailableError
from aiki.observability import get_logger

__all__ = ["Supervisor"]

log = get_logger(__name__)

PAUSE_FIRST_SECONDS = 0.05
PAUSE_MAX_SECONDS = 2.0

CLOSED = "it was closed"


class Supervisor:
    """Keeps one link alive at a time. *connect* opens one to an address and makes the topology sure to be there."""

    def __init__(self, connect: Callable[[Address], Awaitable[Link]]) -> None:
        self._order: Iterator[Address] = iter(())
        self._connect = connect
        self._link: Link | None = None
        self._trouble = "it was not started"
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    @property
    def link(self) -> Link | None:
        """The link, if there is one now."""
        if self._closed.is_set() or self._link is None or self._link.is_lost:
            return None
        return self._link

    @property
    def trouble(self) -> str:
        """Why there is no link."""
        return self._trouble

    async def start(self, addresses: Sequence[Address]) -> None:
        """Connect, trying each of *addresses* once, and stay connected from then on.

        Raises:
            BrokerUnavailableError, ConfigurationError: none of them could be used.
        """
        if self._closed.is_set():
            raise BrokerUnavailableError("this broker was closed", hint="make a new one")
        if self._keeper is not None:
            return
        self._order = cycle(addresses)
        for others in range(len(addresses) - 1, -1, -1):
            try:
                self._link = await self._connect(next(self._order))
                break
            except AikiError:
                if others == 0:
                    raise
        self._keeper = asyncio.create_task(self._keep(), name="aiki-rabbitmq-supervisor")

    async def current(self, *, timeout: float) -> Link:
        """Wait for a link, up to *timeout* seconds.

        Raises:
            BrokerUnavailableError: there was none in time, or the broker was closed or never started.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self.wait()
        except TimeoutError:
            raise BrokerUnavailableError(
                f"there was no connection to RabbitMQ within {timeout:g} s: {self._trouble}",
                hint="it is made again by itself as soon as RabbitMQ can be reached; `aiki doctor` looks closer",
            ) from None

    async def wait(self) -> Link:
        """Wait for a link, for as long as it takes.

        Raises:
            BrokerUnavailableError: the broker was closed, or never started.
        """
        while True:
            if self._closed.is_set() or self._keeper is None:
                raise BrokerUnavailableError(f"there is no connection to RabbitMQ: {self._trouble}")
            if (link := self.link) is not None:
                return link
            self._changed.clear()
            await self._changed.wait()

    def seal(self) -> None:
        """Serve nobody any more: whoever waits for a link, or asks for one, hears that there is none."""
        self._closed.set()
        self._trouble = CLOSED
        self._changed.set()

    async def close(self) -> None:
        """Disconnect for good; safe to call twice."""
        self.seal()
        keeper, self._keeper = self._keeper, None
        await end(keeper)
        link, self._link = self._link, None
        if link is not None:
            await link.close(CLOSED)
        await asyncio.gather(*self._farewells)

    async def _keep(self) -> None:
        while self._link is not None:
            self._trouble = await asyncio.shield(self._link.lost)
            log.warning("broker.lost", address=str(self._link.address), reason=self._trouble)
            self._take_down(self._link)
            self._link = await self._reconnect()
            if self._link is not None:
                log.info("broker.connected", address=str(self._link.address))
                self._changed.set()

    def _take_down(self, link: Link) -> None:
        """Close what is left of *link* beside everything else: one that hangs must not delay the next."""
        farewell = asyncio.create_task(link.close(self._trouble), name="aiki-rabbitmq-farewell")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _reconnect(self) -> Link | None:
        """Connect again; ``None`` when the broker is closed meanwhile."""
        pause = PAUSE_FIRST_SECONDS
        # Being cancelled is not enough to end this: wait_for, which the driver connects with, swallows
        # a cancellation that comes in the very moment of success.
        while not self._closed.is_set():
            # Jitter is no secret.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_MAX_SECONDS)
            try:
                link = await self._connect(next(self._order))
            except AikiError as error:
                if error.message != self._trouble:
                    self._trouble = error.message
                    log.warning("broker.unreachable", reason=error.message, hint=error.hint)
                continue
            if not self._closed.is_set():
                return link
            self._take_down(link)
        return None
