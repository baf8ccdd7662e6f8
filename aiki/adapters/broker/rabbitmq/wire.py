"""The wire: what the broker passes on and the driver cannot read, made readable.

RabbitMQ carries properties and routing keys as their publisher wrote them. The
driver ends the connection over a time stamp beyond the year 9999, a text that is
not UTF-8, a table nested too deep; the message would come again, to us and to
everybody after us, and nobody would ever get past it. So properties that cannot be
read are taken away before the driver sees them, and the message arrives as one
without: its body says what it is.
"""

import asyncio
from struct import error as struct_error
from typing import Any, cast

import aio_pika
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from pamqp.header import ContentHeader
from yarl import URL

__all__ = ["GuardedConnection", "readable_frame"]

_METHOD, _CONTENT_HEADER = 1, 2
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
    """A plain connection whose driver is given nothing that it cannot read."""

    def __init__(self, url: URL, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self.kwargs["transport_factory"] = _Guarding(TLSTransportFactory() if url.scheme == "amqps" else None)


class _Guarding(TransportFactory):
    """Connects as the driver does, and stands between the socket and the driver's reader of frames."""

    def __init__(self, plain: TransportFactory | None) -> None:
        self._plain = plain or TCPTransportFactory()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._plain.create(url, **kwargs)
        return cast(asyncio.StreamReader, _Reader(reader)), writer


class _Reader:
    """Hands out frames as the driver reads them, in three steps: their type, their channel and size, the rest."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._step = 0
        self._type = 0

    def at_eof(self) -> bool:
        return self._reader.at_eof()

    async def read(self, n: int = -1) -> bytes:
        return await self._reader.read(n)

    async def readexactly(self, n: int) -> bytes:
        data = await self._reader.readexactly(n)
        step = self._step
        if step == 2:
            self._step = 0
            return readable_frame(self._type, data)
        if step == 0:
            self._type = data[0]
        self._step = step + 1
        return data


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
