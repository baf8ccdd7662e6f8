"""The health endpoint: two questions over HTTP, answered in JSON.

``/live``: is the process's event loop turning? ``/ready``: can it do its work right
now? For the probes of whatever runs the process; it has no other pages.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiki.errors import ConfigurationError

__all__ = ["HealthEndpoint"]

# A probe asks in one small packet; whoever takes longer or says more is none.
_REQUEST_SECONDS = 5.0
_REQUEST_BYTES_MAX = 8 * 1024

_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class HealthEndpoint:
    """Answers probes on *host* and *port*. *report* tells the state, whose ``ready`` decides about 200 or 503."""

    def __init__(self, host: str, port: int, *, report: Callable[[], Mapping[str, Any]]) -> None:
        self._host = host
        self._port = port
        self._report = report
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the address is taken, or none of ours.
        """
        try:
            self._server = await asyncio.start_server(self._answer, self._host, self._port, limit=_REQUEST_BYTES_MAX)
        except OSError as error:
            raise ConfigurationError(
                f"the health endpoint cannot listen on {self._host}:{self._port}: {error.strerror or error}",
                hint="choose another address, or none",
            ) from error

    async def close(self) -> None:
        """Stop listening; safe to call twice."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A probe that hangs up, dawdles or talks nonsense has no claim to an answer.
        with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._respond(head))
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def _respond(self, head: bytes) -> bytes:
        method, path = _requested(head)
        if method not in ("GET", "HEAD"):
            return _response(405, {"error": "ask with GET"}, with_body=True)
        if path == "/live":
            return _response(200, {"live": True}, with_body=method == "GET")
        if path == "/ready":
            report = self._report()
            return _response(200 if report.get("ready") else 503, report, with_body=method == "GET")
        return _response(404, {"error": "there are /live and /ready"}, with_body=method == "GET")


def _requested(head: bytes) -> tuple[str, str]:
    """Read the method and the path of a request; of nonsense, both are empty."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3:
        return "", ""
    return words[0], words[1].split("?", 1)[0]


def _response(status: int, content: Mapping[str, Any], *, with_body: bool) -> bytes:
    body = json.dumps(content, default=str).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
