"""The client's end: a broker, as far as a client needs one, that lives in another process."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aiki.adapters.broker.socket.frames import PROTOCOL, Frame, FrameError, Kind, connect, read_frame, socket_path
from aiki.asynchronous import end
from aiki.codec.messages import decode_answer, decode_notice, encode_events, encode_query
from aiki.engine.commands import Notice
from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query
from aiki.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    PublishUncertainError,
    QueryTimeoutError,
    UndecodableError,
    UnroutableError,
)
from aiki.ports.broker import ClientBroker, Delivery, NoticeSubscription

__all__ = ["SocketBroker"]

_PAUSE_FIRST, _PAUSE_LAST = 0.05, 2.0

# How much longer than its caller's time a request waits to hear from the server what became of it.
_GRACE = 1.0

# How long a change of a subscription may take; the other process does it without any wait.
_CHANGE_TIMEOUT = 10.0


class SocketBroker(ClientBroker):
    """The broker of the process that owns *database*.

    A lost connection is made again by itself: the other process may be restarted at any time. What was asked for and
    not answered then is uncertain, and every subscription is lost, as with any broker.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = socket_path(database)
        self._link: _Link | None = None
        self._news = asyncio.Event()
        """Set while connected, and at the end, for those who wait for either."""
        self._keeper: asyncio.Task[None] | None = None
        self._partitions = 0

    @property
    def partitions(self) -> int:
        """How many partitions the other process has."""
        return self._partitions

    @property
    def is_connected(self) -> bool:
        """Whether the other process is there."""
        return self._link is not None and not self._link.is_lost

    async def start(self) -> None:
        """Connect. Raises ``BrokerUnavailableError`` if nobody listens."""
        if self._keeper is None:
            await self._connect()
            self._keeper = asyncio.create_task(self._keep(), name="aiki-socket")

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        keeper, self._keeper = self._keeper, None
        await end(keeper)
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        self._news.set()

    async def publish_events(self, partition: int, events: Sequence[Event], *, timeout: float) -> None:
        """Hand *events* over; returns once the other process has stored what follows from them."""
        body = encode_events(events)
        deadline = asyncio.get_running_loop().time() + timeout
        link = await self._linked(timeout)
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        try:
            await link.request(lambda number: Frame.publish(number, partition, left, body), timeout=left + _GRACE)
        except TimeoutError as error:
            raise PublishUncertainError(f"{self._path} did not confirm within {timeout:g} s") from error

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask the orchestrator in the other process."""
        deadline = asyncio.get_running_loop().time() + timeout
        link = await self._linked(timeout)
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        body = encode_query(query)
        try:
            answer = await link.request(lambda number: Frame.ask(number, left, body), timeout=left + _GRACE)
        except (TimeoutError, QueryTimeoutError) as error:
            raise QueryTimeoutError(timeout=timeout) from error
        except PublishUncertainError as error:
            raise BrokerUnavailableError(error.message) from error  # Asking again is harmless.
        return decode_answer(answer.body)

    async def consume_notices(self, client: str) -> NoticeSubscription:
        """Subscribe to the notices for *client*."""
        link = await self._linked(_CHANGE_TIMEOUT)
        subscription = _Notices(link)
        try:
            await link.request(lambda number: subscription.opening(number, client), timeout=_CHANGE_TIMEOUT)
        except (TimeoutError, PublishUncertainError) as error:
            raise BrokerUnavailableError(f"{self._path} does not answer") from error
        return subscription

    async def _linked(self, timeout: float) -> "_Link":
        try:
            async with asyncio.timeout(timeout):
                while self._link is None or self._link.is_lost:
                    if self._keeper is None:
                        raise BrokerUnavailableError("the broker is closed", hint="use it inside `async with`")
                    await self._news.wait()
        except TimeoutError:
            raise self._nobody() from None
        return self._link

    def _nobody(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"no process that owns {self._database} is running", hint="start one with `aiki dev`"
        )

    async def _connect(self) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connect(self._path))
        except OSError as error:
            raise self._nobody() from error
        try:
            self._partitions = await self._greeted(reader)
        except BaseException:
            writer.close()
            raise
        # At once, and not when the keeper comes to it: whoever waits for news must find none until there are.
        self._link = _Link(reader, writer, str(self._path), on_lost=self._news.clear)
        self._news.set()

    async def _greeted(self, reader: asyncio.StreamReader) -> int:
        """Wait for the greeting, and tell the number of partitions."""
        try:
            async with asyncio.timeout(_CHANGE_TIMEOUT):
                hello = (await read_frame(reader)).content()
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:  # A timeout is an OSError.
            raise self._nobody() from error
        if hello.get("protocol") != PROTOCOL:
            raise BrokerUnavailableError(
                f"the process that owns {self._database} speaks protocol {hello.get('protocol')}, this one {PROTOCOL}",
                hint="use the same version of Aiki for both",
            )
        return int(str(hello["partitions"]))

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost, for ever."""
        pause = _PAUSE_FIRST
        while True:
            if self._link is not None:
                await self._link.lost()
                self._link = None
            try:
                await self._connect()
                pause = _PAUSE_FIRST
            except BrokerError:
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(pause * 2, _PAUSE_LAST)


class _Link:
    """One connection: requests that wait for their answers, and subscriptions, until it is lost."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        where: str,
        *,
        on_lost: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._on_lost = on_lost
        self._writer = writer
        self._where = where
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self.subscriptions: dict[int, _Notices] = {}
        self._is_lost = False
        self._task = asyncio.create_task(self._read(), name="aiki-socket-reader")

    @property
    def is_lost(self) -> bool:
        """Whether nothing goes over it any more."""
        return self._is_lost

    async def lost(self) -> None:
        """Wait until the connection is lost."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """End the connection."""
        await end(self._task)
        with suppress(OSError):
            await self._writer.wait_closed()

    async def request(self, make: Callable[[int], Frame], *, timeout: float) -> Frame:
        """Send a frame and wait for its answer.

        Raises:
            TimeoutError: there was none.
            PublishUncertainError: the connection was lost meanwhile.
            BrokerError: the other process refused; as it was raised there.
        """
        number = next(self._numbers)
        frame = make(number)
        if self._is_lost:
            raise BrokerUnavailableError(f"the connection to {self._where} is lost")
        waiting: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._writer.write(frame.encode())
            async with asyncio.timeout(timeout):
                answer = await waiting
        finally:
            self._waiting.pop(number, None)
        if answer.kind is Kind.ERROR:
            raise _error_of(answer, timeout)
        return answer

    async def _read(self) -> None:
        try:
            while True:
                self._take(await read_frame(self._reader))
        except (asyncio.IncompleteReadError, OSError, FrameError, UndecodableError):
            pass  # Lost: everybody who waits is told below, and the broker connects again.
        finally:
            self._is_lost = True
            self._on_lost()
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(PublishUncertainError(f"the connection to {self._where} was lost"))
            for subscription in list(self.subscriptions.values()):
                subscription.lose()

    def _take(self, frame: Frame) -> None:
        if frame.kind in (Kind.NOTICE, Kind.LOST):
            subscription = self.subscriptions.get(frame.number)
            if subscription is not None:
                subscription.take(frame)
            return
        waiting = self._waiting.get(frame.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)


_SAME_ON_BOTH_SIDES: dict[str, type[BrokerError]] = {
    kind.__name__: kind for kind in (BrokerUnavailableError, PublishUncertainError, DeliveryLostError)
}


def _error_of(frame: Frame, timeout: float) -> BrokerError:
    """Make the error that the other process wrote into *frame*."""
    content = frame.content()
    name, message, hint = (content.get(field) for field in ("type", "message", "hint"))
    if name == QueryTimeoutError.__name__:
        return QueryTimeoutError(timeout=timeout)
    if name == UnroutableError.__name__:
        return UnroutableError(str(content.get("exchange")), str(content.get("routing_key")))
    kind = _SAME_ON_BOTH_SIDES.get(str(name), BrokerError)
    return kind(str(message), hint=None if hint is None else str(hint))


class _Notices(NoticeSubscription):
    """Notices as they come over one connection."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._number = 0
        self._arrived: list[Delivery[Notice]] = []
        self._news = asyncio.Event()
        self._lost = False
        self._tags = itertools.count(1)

    def opening(self, number: int, client: str) -> Frame:
        """Make the frame that opens this subscription; notices may come right behind the answer."""
        self._number = number
        self._link.subscriptions[number] = self
        return Frame(Kind.SUBSCRIBE, number, client.encode())

    def take(self, frame: Frame) -> None:
        """Take what came for this subscription."""
        if frame.kind is Kind.LOST:
            self.lose()
            return
        self._arrived.append(Delivery(decode_notice(frame.body), redelivered=False, tag=next(self._tags)))
        self._news.set()

    def lose(self) -> None:
        """Nothing comes any more."""
        self._lost = True
        self._link.subscriptions.pop(self._number, None)
        self._news.set()

    async def receive(self) -> Sequence[Delivery[Notice]]:
        """Wait for notices and take all that have arrived."""
        await self._news.wait()
        if self._lost:
            raise DeliveryLostError("the subscription is gone")
        arrived, self._arrived = self._arrived, []
        self._news.clear()
        return arrived

    async def acknowledge(self, deliveries: Sequence[Delivery[Notice]]) -> None:
        """Nothing to do: notices are not kept."""
        if self._lost:
            raise DeliveryLostError("the subscription is gone")

    async def stop(self) -> None:
        """Take nothing more; what has arrived is still handed out."""
        await self._change(Kind.UNSUBSCRIBE)

    async def close(self) -> None:
        """End the subscription; safe to call twice."""
        if not self._lost:
            with suppress(DeliveryLostError):
                await self._change(Kind.UNSUBSCRIBE)
            self.lose()

    async def watch(self, run_id: str) -> None:
        """Hear of *run_id* from now on."""
        await self._change(Kind.WATCH, run_id)

    async def unwatch(self, run_id: str) -> None:
        """Stop hearing of *run_id*."""
        await self._change(Kind.UNWATCH, run_id)

    async def _change(self, kind: Kind, run_id: str = "") -> None:
        content: dict[str, object] = {"subscription": self._number, "run_id": run_id}
        try:
            await self._link.request(lambda number: Frame.json(kind, number, content), timeout=_CHANGE_TIMEOUT)
        except (TimeoutError, BrokerError) as error:
            raise DeliveryLostError("the subscription is gone") from error
