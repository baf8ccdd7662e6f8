"""A link: two plain connections that live and die together.

One publishes and one consumes, because a broker that is short of memory stops
reading from whoever publishes, and acknowledgements must not stand in that queue.
A lost connection is never revived. Everything that was delivered over it, and
every publish that was not confirmed, has become uncertain at one moment, and that
moment must be seen: so the whole link ends, and a new one is made.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractConnection as DriverConnection
from aiormq.abc import ConsumerCallback, DeliveredMessage
from aiormq.channel import Channel
from yarl import URL

from aiki.adapters.broker.rabbitmq.trouble import connecting, reason_of, talking
from aiki.adapters.broker.rabbitmq.wire import Arrive, GuardedConnection
from aiki.errors import BrokerUnavailableError, ConfigurationError

__all__ = ["BLOCKED", "BLOCKED_HINT", "VERSION_MIN", "Address", "Link", "addresses_of"]

VERSION_MIN = (3, 10)

# Frames of one channel that wait for its reader. The driver's default of 10 makes the readers of
# connection and channel take turns for every third message.
FRAME_BUFFER = 1000

# A broker that hangs answers no farewell; the system closes the socket whatever it says.
CLOSE_SECONDS = 3.0

BLOCKED = "RabbitMQ is short of memory or disk space and takes no messages"
BLOCKED_HINT = "see `rabbitmqctl status` for the alarm; it goes on by itself when there is room again"

# The driver tells only by making us wait.
LOOK_SECONDS = 0.01

# Between the failure of a call and the end of its connection: a few turns of the event loop.
NOTICE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and who we are there."""

    url: URL

    def __str__(self) -> str:
        """Write the address for people: without the password."""
        return str(self.url.with_query(None).with_user(None)) if self.url.host else "an address without a host"


def addresses_of(url: str) -> tuple[Address, ...]:
    """Read one URL, or several separated by commas: the nodes of a cluster.

    Raises:
        BrokerUnavailableError: it is no AMQP URL.
    """
    addresses = []
    for part in (part.strip() for part in url.split(",")):
        with connecting("the given URL"):
            parsed = URL(part)
            parsed.port  # noqa: B018 - it is read, and refused, only when asked for
        if parsed.scheme not in ("amqp", "amqps") or not parsed.host:
            raise BrokerUnavailableError(
                f"{Address(parsed)} is no address of RabbitMQ",
                hint="write it as amqp://user:password@host:5672/vhost (amqps:// with TLS)",
            )
        addresses.append(Address(parsed))
    return tuple(addresses)


def _version_of(connection: DriverConnection) -> tuple[int, ...]:
    """Read the broker's version. What a broker can do is told by it: unknown arguments are accepted and ignored."""
    text = connection.server_properties.get("version", "")
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return tuple(int(number) for number in re.findall(r"\d+", str(text))[:3])


class Link:
    """Two connections to one broker. Made by ``open``; ``lost`` is done as soon as either of them is gone."""

    def __init__(self, address: Address, publishing: GuardedConnection, consuming: GuardedConnection) -> None:
        self.address = address
        self._connections = (publishing, consuming)
        self._publishing, self._consuming = _driver(publishing), _driver(consuming)
        self.version = _version_of(self._publishing)
        self.declared: set[str] = set()
        """The names of what was declared over this link when it was first needed."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the link is gone; its result says why."""
        self._closing = [connection.closing for connection in (self._publishing, self._consuming)]
        for closing in self._closing:
            closing.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, address: Address, *, name: str, heartbeat: int, timeout: float) -> "Link":
        """Connect twice.

        Raises:
            BrokerUnavailableError: it cannot be reached, or refuses the user or the virtual host.
            ConfigurationError: the broker is older than what Aiki works with.
        """
        publishing = await _connect(address, f"{name} (publishing)", heartbeat=heartbeat, timeout=timeout)
        try:
            consuming = await _connect(address, f"{name} (consuming)", heartbeat=heartbeat, timeout=timeout)
        except BaseException:
            await _disconnect(publishing)
            raise
        link = cls(address, publishing, consuming)
        if link.version and link.version < VERSION_MIN:
            await link.close("it is too old")
            raise ConfigurationError(
                f"RabbitMQ at {address} is version {'.'.join(map(str, link.version))}",
                hint=f"Aiki works with {'.'.join(map(str, VERSION_MIN))} and later",
            )
        return link

    @property
    def is_lost(self) -> bool:
        """Whether either connection is gone."""
        return self.lost.done()

    async def is_blocked(self) -> bool:
        """Tell whether the broker takes nothing at present: it is short of memory or disk space."""
        if self.is_lost:
            return False
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._publishing.ready()
        except TimeoutError:
            return True
        return False

    async def is_gone(self) -> bool:
        """Tell whether the link is lost, after something failed that may be a sign of it.

        A call fails a moment before the driver says that the connection is closed.
        """
        await asyncio.wait({self.lost}, timeout=NOTICE_SECONDS)
        return self.is_lost

    def lose(self, reason: str) -> None:
        """Give the link up: whoever depends on it hears of it at once."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def on_lost(self, tell: Callable[[str], None]) -> Callable[[], None]:
        """Have *tell* called with the reason when the link is lost; returns what takes that back."""

        def callback(lost: asyncio.Future[str]) -> None:
            tell(lost.result())

        self.lost.add_done_callback(callback)

        def forget() -> None:
            self.lost.remove_done_callback(callback)

        return forget

    async def publishing_channel(self) -> Channel:
        """Open a channel with publisher confirms, for one user.

        Raises:
            BrokerUnavailableError: the link is gone.
        """
        return await _channel(self._publishing, confirms=True)

    async def consuming_channel(self) -> Channel:
        """Open a channel to consume from, or to declare on.

        Raises:
            BrokerUnavailableError: the link is gone.
        """
        return await _channel(self._consuming, confirms=False)

    def collect(self, channel: Channel, arrive: Arrive) -> ConsumerCallback:
        """Have *arrive* called with each delivery on *channel* while it is open; returns the callback to consume with.

        *arrive* must neither wait nor raise: everything that comes in waits for it.
        """
        of = self._connections[0 if channel.connection is self._publishing else 1]
        leave = of.wire.deliver(channel.number, arrive)
        channel.closing.add_done_callback(lambda _: leave())
        return _come_too_late

    async def close(self, reason: str) -> None:
        """Disconnect, politely if the broker still answers."""
        self.lose(reason)
        await asyncio.gather(*(_disconnect(connection) for connection in self._connections))

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.lose(reason_of(None if closing.cancelled() else closing.exception()))


async def _come_too_late(_message: DeliveredMessage) -> None:
    """Leave a message alone that comes while its channel closes: it goes back to its queue."""


def _driver(connection: AbstractConnection) -> DriverConnection:
    if connection.transport is None:
        raise BrokerUnavailableError("the connection was lost while connecting")
    return connection.transport.connection


async def _connect(address: Address, name: str, *, heartbeat: int, timeout: float) -> GuardedConnection:
    query = {"heartbeat": str(heartbeat), **address.url.query}
    with connecting(str(address)):
        connection = await aio_pika.connect(
            address.url.with_query(query),
            timeout=timeout,
            client_properties={"connection_name": name, "product": "Aiki"},
            connection_class=GuardedConnection,
        )
    assert isinstance(connection, GuardedConnection)
    return connection


async def _disconnect(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            with talking("disconnect"):
                await connection.close()
    except (BrokerUnavailableError, ConfigurationError, TimeoutError):
        return  # It is gone, or goes with its socket: nothing is left to be done about it.


async def _channel(connection: DriverConnection, *, confirms: bool) -> Channel:
    with talking("open a channel"):
        channel = await connection.channel(
            publisher_confirms=confirms, frame_buffer_size=FRAME_BUFFER, timeout=CLOSE_SECONDS
        )
    if not isinstance(channel, Channel):
        raise TypeError(f"aiormq made a {type(channel).__name__}, not a Channel")
    return channel
