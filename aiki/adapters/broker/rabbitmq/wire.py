"""The wire: deliveries taken off it by ourselves, and what the driver cannot read made readable.

RabbitMQ carries properties and routing keys as their publisher wrote them. The
driver ends the connection over a time stamp beyond the year 9999, a text that is
not UTF-8, a table nested too deep; the message would come again, to us and to
everybody after us, and nobody would ever get past it. So properties that cannot be
read are taken away before the driver sees them, and the message arrives as one
without: its body says what it is.
"""

import asyncio
import time
from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any, cast

import aio_pika
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp import commands
from pamqp.header import ContentHeader
from yarl import URL

__all__ = ["Arrive", "Delivered", "GuardedConnection", "Wire", "readable_frame"]

READ_BYTES = 64 * 1024

# The driver gives a connection up that it hears nothing from; what is taken here it does not hear.
SILENCE_SECONDS = 1.0

_METHOD, _CONTENT_HEADER, _CONTENT_BODY, _HEARTBEAT_KIND = 1, 2, 3, 8
_KINDS = frozenset({_METHOD, _CONTENT_HEADER, _CONTENT_BODY, _HEARTBEAT_KIND})
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_END = 0xCE
_HEAD = Struct(">BHI")
_TAG = Struct(">QB")
_DELIVER, _RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"

# Class, weight and size of the body stand before the flags; the end mark of the frame behind everything.
_FLAGS, _PROPERTIES = slice(12, 14), 14
_NO_FLAGS = b"\x00\x00"

_HEADERS, _TIMESTAMP = 1 << 13, 1 << 6
_NEXT_FLAGS = 1

# Flag and width of each property in order; those without a width are short strings. Tables are left to the driver.
_FIELDS = (
    *((1 << bit, 0) for bit in (15, 14)),
    *((1 << bit, 1) for bit in (12, 11)),
    *((1 << bit, 0) for bit in (10, 9, 8, 7)),
    (_TIMESTAMP, 8),
    *((1 << bit, 0) for bit in (5, 4, 3, 2)),
)
_THIS_CENTURY = b"\x00\x00\x00\x00"

_UNREADABLE = (struct_error, ValueError, TypeError, LookupError, ArithmeticError, OSError, RecursionError)


class GuardedConnection(aio_pika.Connection):
    """A plain connection whose driver is given nothing that it cannot read, and no delivery that we take ourselves."""

    def __init__(self, url: URL, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._guard = _Guarding(TLSTransportFactory() if url.scheme == "amqps" else None)
        self.kwargs["transport_factory"] = self._guard

    @property
    def wire(self) -> "Wire":
        """What is read from the socket. There is one once the connection was made."""
        wire = self._guard.wire
        assert wire is not None
        return wire


class _Guarding(TransportFactory):
    """Connects as the driver does, and stands between the socket and the driver's reader of frames."""

    def __init__(self, plain: TransportFactory | None) -> None:
        self._plain = plain or TCPTransportFactory()
        self.wire: Wire | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._plain.create(url, **kwargs)
        self.wire = Wire(reader)
        return cast(asyncio.StreamReader, self.wire), writer


class Delivered:
    """A message as the broker delivered it."""

    __slots__ = ("_header", "body", "consumer", "redelivered", "tag")

    def __init__(self, consumer: str, tag: int, redelivered: bool) -> None:
        self.consumer = consumer
        self.tag = tag
        self.redelivered = redelivered
        self.body = b""
        self._header = b""

    @property
    def properties(self) -> commands.Basic.Properties:
        """The properties, read only now; none of them where they cannot be read."""
        header = ContentHeader()
        try:
            header.unmarshal(self._header)
        except _UNREADABLE:
            return commands.Basic.Properties()
        return header.properties

    def begin(self, header: bytes) -> int:
        """Take the header without its end mark, and tell how long the body is."""
        self._header = header
        return int.from_bytes(header[4:12])


Arrive = Callable[[Delivered], None]


class _Arriving:
    """A delivery of which not all frames are here."""

    __slots__ = ("delivered", "missing", "parts")

    def __init__(self, delivered: Delivered) -> None:
        self.delivered = delivered
        self.parts: list[bytes] = []
        self.missing = 0


class Wire:
    """The frames that come in: deliveries go to who asked for them, everything else to the driver.

    The driver reads a frame in three steps, each a coroutine, makes objects of all that is in it, and passes
    it through a queue to a task. For three frames a delivery that is most of what a small message costs.
    Here a lot of frames is read at once, and a delivery is taken out of it by a plain function.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = b""
        self._at = 0
        self._frame = b""
        self._step = 0
        self._takers: dict[int, Arrive] = {}
        self._arriving: dict[int, _Arriving] = {}
        self._took_some = False
        self._heard_at = time.monotonic()
        self._speaks_amqp = True

    def deliver(self, channel: int, arrive: Arrive) -> Callable[[], None]:
        """Have *arrive* called with each delivery on *channel*; returns what ends that.

        It must neither wait nor raise: whatever is behind it on the connection waits for it.
        """
        self._takers[channel] = arrive
        self._arriving.pop(channel, None)

        def leave() -> None:
            if self._takers.get(channel) is arrive:  # The number may be somebody else's by now.
                del self._takers[channel]
                self._arriving.pop(channel, None)

        return leave

    # -- what the driver asks of a reader --------------------------------------------------------

    def at_eof(self) -> bool:
        """Whether nothing will come any more."""
        return self._at >= len(self._buffer) and self._reader.at_eof()

    async def read(self, n: int = -1) -> bytes:
        """Read what is there, frame or not."""
        rest, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return rest or await self._reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        """Read a frame in the driver's steps: its type, its channel and size, the rest.

        Raises:
            IncompleteReadError: the connection ended before.
        """
        if self._step == 0 and self._speaks_amqp:
            self._frame = await self._next_frame()
            self._speaks_amqp = self._frame[0] in _KINDS
        if not self._speaks_amqp:
            return await self._as_it_came(n)
        step, self._step = self._step, (self._step + 1) % 3
        if step == 2:
            return readable_frame(self._frame[0], self._frame[7:])
        return self._frame[1:7] if step else self._frame[:1]

    async def _as_it_came(self, n: int) -> bytes:
        """Give what is no frame at all: a broker that speaks another version says so before it hangs up."""
        self._buffer, self._at, self._frame = self._frame + self._buffer[self._at :], 0, b""
        while len(self._buffer) < n:
            await self._fill(n)
        self._at = n
        return self._buffer[:n]

    async def _next_frame(self) -> bytes:
        while True:
            frame = self._take()
            if frame is None and self._took_some and time.monotonic() - self._heard_at > SILENCE_SECONDS:
                frame = _HEARTBEAT  # A broker that delivers sends no heartbeats, and the driver counts what it sees.
            if frame is not None:
                self._took_some = False
                self._heard_at = time.monotonic()
                return frame
            await self._fill(1)

    async def _fill(self, expected: int) -> None:
        data = await self._reader.read(READ_BYTES)
        rest = self._buffer[self._at :]
        if not data:
            raise asyncio.IncompleteReadError(rest, expected)
        self._buffer, self._at = rest + data, 0

    def _take(self) -> bytes | None:
        """Take the next frame for the driver out of what was read, and all deliveries before it."""
        buffer, at = self._buffer, self._at
        try:
            while len(buffer) - at > _HEAD.size:
                kind, channel, size = _HEAD.unpack_from(buffer, at)
                if kind not in _KINDS:
                    at += 1
                    return buffer[at - 1 : at]
                start, end = at + _HEAD.size, at + _HEAD.size + size
                if end >= len(buffer):
                    return None
                at = end + 1
                ours = channel in self._takers and buffer[end] == _END
                if not (ours and self._take_part(channel, kind, buffer[start:end])):
                    return buffer[start - _HEAD.size : at]
            return None
        finally:
            self._at = at

    def _take_part(self, channel: int, kind: int, payload: bytes) -> bool:
        """Take one frame of a delivery; tells whether it was one."""
        arriving = self._arriving.get(channel)
        if kind == _METHOD:
            if payload[:4] != _DELIVER:
                return False
            self._arriving[channel] = _Arriving(_delivered(payload))
        elif arriving is None:
            return False
        else:
            if kind == _CONTENT_HEADER:
                arriving.missing = arriving.delivered.begin(payload)
            else:
                arriving.parts.append(payload)
                arriving.missing -= len(payload)
            if arriving.missing <= 0:
                self._arrived(channel, arriving)
        self._took_some = True
        return True

    def _arrived(self, channel: int, arriving: _Arriving) -> None:
        del self._arriving[channel]
        parts, delivered = arriving.parts, arriving.delivered
        delivered.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._takers[channel](delivered)


def _delivered(payload: bytes) -> Delivered:
    end = 5 + payload[4]
    tag, redelivered = _TAG.unpack_from(payload, end)
    return Delivered(payload[5:end].decode(errors="replace"), tag, bool(redelivered & 1))


def readable_frame(kind: int, payload: bytes) -> bytes:
    """Give the *payload* of a frame with its end mark as it is, or as long as it is without what cannot be read."""
    if kind == _CONTENT_HEADER:
        if _is_plain(payload) or _is_readable(payload):
            return payload
        return b"".join((payload[: _FLAGS.start], _NO_FLAGS, payload[_FLAGS.stop :]))
    if kind == _METHOD and payload[:4] in (_DELIVER, _RETURN):
        return _with_readable_key(payload)
    return payload


def _is_plain(payload: bytes) -> bool:
    """Tell quickly of what our own processes send that nothing is wrong with it."""
    flags = int.from_bytes(payload[_FLAGS])
    if flags & (_HEADERS | _NEXT_FLAGS):
        return False
    at = _PROPERTIES
    for flag, width in _FIELDS:
        if not flags & flag:
            continue
        if width:
            if flag == _TIMESTAMP and payload[at : at + 4] != _THIS_CENTURY:
                return False
            at += width
        else:
            end = at + 1 + payload[at] if at < len(payload) else at
            if not payload[at + 1 : end].isascii():
                return False
            at = end
    return at < len(payload)


def _is_readable(payload: bytes) -> bool:
    try:
        ContentHeader().unmarshal(payload[:-1])
    except _UNREADABLE:
        return False
    return True


def _with_readable_key(payload: bytes) -> bytes:
    """Replace a routing key, the last word of a delivery, that is no text: nothing here looks at it."""
    at = 4
    if payload.startswith(_DELIVER):
        at += 1 + payload[at] + 9  # The consumer, the tag of the delivery, whether it is delivered again.
    else:
        at += 2  # The code of the reason, and its text.
        at += 1 + payload[at]
    at += 1 + payload[at]
    key = payload[at + 1 : -1]
    try:
        key.decode()
    except UnicodeDecodeError:
        return payload[: at + 1] + b"?" * len(key) + payload[-1:]
    return payload
