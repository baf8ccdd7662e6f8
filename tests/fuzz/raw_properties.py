"""Messages as no library writes them: with properties that are allowed on the wire, and that readers stumble over."""

import asyncio
from struct import Struct

import aiormq
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

__all__ = ["PROPERTIES", "content_header", "publish_raw"]

_FRAME, _HEADER, _U32, _U64 = Struct(">BHI"), Struct(">HHQH"), Struct(">I"), Struct(">Q")
_PUBLISH = Struct(">HHH").pack(60, 40, 0)


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def table(name: bytes, value: bytes) -> bytes:
    content = short(name) + value
    return _U32.pack(len(content)) + content


def nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"F" + table(b"a", value)
    return value


CORRELATION_ID, TIMESTAMP, TYPE, HEADERS = 1 << 10, 1 << 6, 1 << 5, 1 << 13

PROPERTIES: dict[str, tuple[int, bytes]] = {
    "an id that is no text": (CORRELATION_ID, short(b"\xff\xfe")),
    "a type that is no text": (TYPE, short(b"\xff")),
    "a time beyond the calendar": (TIMESTAMP, _U64.pack(2**64 - 1)),
    "a time in microseconds": (TIMESTAMP, _U64.pack(1_800_000_000_000_000)),
    "a time beyond the calendar in a header": (HEADERS, table(b"at", b"T" + _U64.pack(2**63))),
    "a header whose name is no text": (HEADERS, table(b"\xff", b"V")),
    "tables in tables": (HEADERS, table(b"a", nested(2_000))),
    "a death that never was": (HEADERS, table(b"x-death", b"S" + _U32.pack(3) + b"abc")),
}


def content_header(flags: int, properties: bytes, *, size: int) -> bytes:
    """Write the payload of a content header."""
    return _HEADER.pack(60, 0, size, flags) + properties


def _frames(channel: int, queue: str, body: bytes, flags: int, properties: bytes) -> bytes:
    method = _PUBLISH + short(b"") + short(queue.encode()) + b"\0"
    header = content_header(flags, properties, size=len(body))
    return b"".join(
        _FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"
        for kind, payload in ((1, method), (2, header), (3, body))
    )


async def publish_raw(url: str, queue: str, body: bytes) -> None:
    """Publish *body* to *queue* once with each of ``PROPERTIES``; returns when the broker has all of them."""
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel(publisher_confirms=False)
        assert isinstance(channel, Channel)
        for flags, properties in PROPERTIES.values():
            written = asyncio.get_running_loop().create_future()
            packed = _frames(channel.number, queue, body, flags, properties)
            await channel.write_queue.put(ChannelFrame(packed, False, written))
            await written
        await channel.queue_declare(queue, passive=True)  # Answered after everything that went before.
    finally:
        await connection.close()
