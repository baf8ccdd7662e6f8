"""Frames: what goes over the socket. A length, a kind, a number that pairs question and answer, and a body.

The bodies are those of the message codec. Both ends are the same version of
Aiki on the same machine, most of the time: the greeting says so, or the
connection is refused with advice.
"""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from struct import Struct

from aiki.errors import BrokerError, ConfigurationError

__all__ = ["PROTOCOL", "Frame", "FrameError", "Kind", "connect", "is_served", "listen", "read_frame", "socket_path"]

PROTOCOL = 1

# Twice the largest message of the codec: what is longer is no frame of ours.
_BODY_BYTES_MAX = 16 * 1024 * 1024

_HEAD = Struct(">IBI")
_PUBLISH = Struct(">dI")
_ASK = Struct(">d")

# A socket's address takes 108 bytes on Linux, 104 elsewhere, with the closing zero.
_ADDRESS_BYTES_MAX = 103


class FrameError(BrokerError):
    """What arrived on the socket is no frame of ours."""


class Kind(IntEnum):
    """What a frame is. Questions come from the client; each is answered by one frame with its number."""

    HELLO = 1  # From the server, first: the protocol, and the number of partitions.
    PUBLISH = 2
    ASK = 3
    SUBSCRIBE = 4  # Its number names the subscription from then on.
    UNSUBSCRIBE = 5
    WATCH = 6
    UNWATCH = 7
    DONE = 16
    ANSWER = 17
    ERROR = 18
    NOTICE = 19  # Carries the number of its subscription.
    LOST = 20  # So does this: the subscription is gone.


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: Kind
    number: int
    body: bytes = b""

    def encode(self) -> bytes:
        """Write the frame."""
        return _HEAD.pack(len(self.body), self.kind, self.number) + self.body

    @classmethod
    def publish(cls, number: int, partition: int, timeout: float, body: bytes) -> "Frame":
        """Make the frame that publishes a message of events."""
        return cls(Kind.PUBLISH, number, _PUBLISH.pack(timeout, partition) + body)

    @classmethod
    def ask(cls, number: int, timeout: float, body: bytes) -> "Frame":
        """Make the frame that asks a query."""
        return cls(Kind.ASK, number, _ASK.pack(timeout) + body)

    @classmethod
    def json(cls, kind: Kind, number: int, content: dict[str, object]) -> "Frame":
        """Make a frame with a small JSON object in it."""
        return cls(kind, number, json.dumps(content).encode())

    def publish_parts(self) -> tuple[float, int, bytes]:
        """Take the body of a ``PUBLISH`` apart: timeout, partition, message."""
        timeout, partition = _PUBLISH.unpack_from(self.body)
        return timeout, partition, self.body[_PUBLISH.size :]

    def ask_parts(self) -> tuple[float, bytes]:
        """Take the body of an ``ASK`` apart: timeout, query."""
        (timeout,) = _ASK.unpack_from(self.body)
        return timeout, self.body[_ASK.size :]

    def content(self) -> dict[str, object]:
        """Read the JSON object of a frame."""
        content = json.loads(self.body)
        if not isinstance(content, dict):
            raise FrameError("a frame holds no JSON object", hint="are both processes of the same version of Aiki?")
        return content


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Read the next frame.

    Raises:
        FrameError: what comes is no frame.
        asyncio.IncompleteReadError, OSError: the connection is gone.
    """
    length, kind, number = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if length > _BODY_BYTES_MAX or kind not in Kind._value2member_map_:
        raise FrameError("the socket carries no frames of ours", hint="are both processes of the same version of Aiki?")
    return Frame(Kind(kind), number, await reader.readexactly(length))


def socket_path(database: Path) -> Path:
    """Tell where the process that owns *database* listens."""
    return database.with_name(database.name + ".sock")


def is_served(database: Path) -> bool:
    """Tell whether a process that owns *database* listens."""
    try:
        connect(socket_path(database)).close()
    except OSError:
        return False
    return True


def connect(path: Path) -> socket.socket:
    """Connect to whoever listens at *path*. Raises ``OSError`` if nobody does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


def listen(path: Path) -> socket.socket:
    """Listen at *path*, for processes of the same user alone. The caller owns the place: what is there is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The permissions of a socket are those at its birth: a later chmod would leave a moment open.
        before = os.umask(0o177)
        try:
            with _address(path) as address:
                listener.bind(address)
        finally:
            os.umask(before)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Make an address of *path*; where that is too long for one, go through an open folder (Linux)."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir() or len(os.fsencode(path.name)) > _ADDRESS_BYTES_MAX // 2:
        raise ConfigurationError(
            f"the path {str(path)!r} is too long for a socket", hint="put the database (AIKI_DATA) somewhere shorter"
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
