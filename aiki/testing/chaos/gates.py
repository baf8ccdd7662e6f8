"""Gates: ports in front of servers, where connections can be cut, held up and slowed down.

Whoever is to be cut off from a server is given the port of a gate instead of the server's.
"""

import asyncio
from collections import deque
from enum import Flag, auto
from typing import Self, cast

from aiki.testing.servers.ports import LOOPBACK, free_port

__all__ = ["Gate", "Way"]

_HELD = "held"
_FULL = "full"
_CONNECTING = "connecting"


class Way(Flag):
    """Which way bytes go: from clients to the server, or back."""

    THERE = auto()
    BACK = auto()
    BOTH = THERE | BACK


class Gate:
    """One port in front of one server. Open as long as nothing else is asked of it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.held = Way(0)
        self.delay = 0.0
        """Seconds by which all bytes are late, each way."""
        self._is_shut = False
        self._ends: set[_End] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Host and port, as clients are to know the server."""
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self, Way.THERE), LOOPBACK, self.port)
        return self

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # What was aborted is closed in the next turn of the loop.

    def cut(self) -> None:
        """End all connections, hard. New ones may be made at once."""
        for end in list(self._ends):
            end.abort()

    def shut(self) -> None:
        """End all connections and refuse new ones."""
        self._is_shut = True
        self.cut()

    def reopen(self) -> None:
        """Take connections again."""
        self._is_shut = False

    def hold(self, way: Way) -> None:
        """Let no byte pass that way, in old and in new connections, as if cables were cut: nobody is told."""
        self.held = way
        for end in self._ends:
            end.look_at_gate()

    def release(self) -> None:
        """Let everything pass that was held, and what comes."""
        self.hold(Way(0))

    def joined(self, end: "_End") -> None:
        """Take in one end of a connection; that of a client is connected to the server."""
        self._ends.add(end)
        if end.way is Way.BACK:
            return
        if self._is_shut:
            end.abort()
            return
        task = asyncio.get_running_loop().create_task(self._connect(end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def left(self, end: "_End") -> None:
        """Forget one end."""
        self._ends.discard(end)

    async def _connect(self, client: "_End") -> None:
        loop = asyncio.get_running_loop()
        try:
            _, server = await loop.create_connection(lambda: _End(self, Way.BACK), LOOPBACK, self.target)
        except OSError:
            client.abort()  # As the server would: nobody listens there.
            return
        client.meet(server)


class _End(asyncio.Protocol):
    """The gate's end of a connection to a client, or to the server."""

    def __init__(self, gate: Gate, way: Way) -> None:
        self.way = way
        """Where the bytes go that are read here."""
        self._gate = gate
        self._peer: _End | None = None
        self._transport: asyncio.Transport | None = None
        self._pauses: set[str] = set()
        self._late: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pause(_CONNECTING)
        self.look_at_gate()
        self._gate.joined(self)

    def meet(self, peer: "_End") -> None:
        """Pass on to *peer* from now on, and the other way round."""
        self._peer, peer._peer = peer, self
        for end in (self, peer):
            end._go_on(_CONNECTING)
            if end._transport is None or end._transport.is_closing():
                self.abort()
                peer.abort()

    def look_at_gate(self) -> None:
        """Stop or go on reading, as the gate wants."""
        if self.way & self._gate.held:
            self._pause(_HELD)
        else:
            self._go_on(_HELD)

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._gate.delay or self._late:
            self._late.append(data)
            asyncio.get_running_loop().call_later(self._gate.delay, self._pass_on_late)
        elif self._peer is not None:
            self._peer._write(data)

    def _pass_on_late(self) -> None:
        # In order, whatever became of the delay meanwhile: each call passes on the oldest.
        data = self._late.popleft()
        if self._peer is not None:
            self._peer._write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._gate.left(self)
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.close()

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer._pause(_FULL)

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer._go_on(_FULL)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _pause(self, reason: str) -> None:
        if not self._pauses and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses.add(reason)

    def _go_on(self, reason: str) -> None:
        was_paused = bool(self._pauses)
        self._pauses.discard(reason)
        if was_paused and not self._pauses and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
