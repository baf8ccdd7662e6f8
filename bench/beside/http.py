"""As much of an HTTP/1.1 client as load needs: connections that stay open, one request at a time on each."""

import asyncio
from types import TracebackType
from typing import Self

from aiki.testing.servers.ports import LOOPBACK

__all__ = ["HttpClient", "HttpError"]

HEAD_END = b"\r\n\r\n"


class HttpError(Exception):
    """The server answered something else than a success of known length."""

    def __init__(self, path: str, answer: bytes) -> None:
        super().__init__(f"{path} was answered with {answer.decode(errors='replace')}")


class HttpClient:
    """Posts JSON to a server on this machine. Connections are opened as needed and kept until the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[asyncio.StreamWriter] = []
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> bytes:
        """Post *body* and wait for the answer's.

        Raises:
            HttpError: the status is not 2xx, or the length is not given.
            asyncio.IncompleteReadError: the server closed the connection.
        """
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        head = f"POST {path} HTTP/1.1\r\nhost: {LOOPBACK}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(HEAD_END)
        status, _, fields = answer.partition(b"\r\n")
        _, known, length = fields.lower().partition(b"content-length:")
        if not known:
            raise HttpError(path, answer)
        content = await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
        if not status.startswith(b"HTTP/1.1 2"):
            raise HttpError(path, answer + content)
        self._idle.append((reader, writer))
        return content

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        self._open.append(writer)
        return reader, writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        for writer in self._open:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._open), return_exceptions=True)
