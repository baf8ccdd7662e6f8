"""A wire to RabbitMQ that knows what is said over it, and can lose a delivery as RabbitMQ does.

RabbitMQ loses deliveries between a queue and the channel of its consumer. The channel
finds out when the next one comes for the same consumer, and delivers what was lost
first. If the channel is closed before, the queue has it again. So the wire keeps a
delivery that is to be lost until the next one to the same consumer. (Unlike there, it has
a number in its channel already: what came later must not be acknowledged together with
what came before, or it is acknowledged too.)
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from struct import Struct
from typing import Self

from aiki.testing.servers.ports import LOOPBACK, free_port

__all__ = ["CHANNEL_CLOSE", "DELIVER", "PUBLISH", "LossyWire"]

Method = tuple[int, int]
CHANNEL_CLOSE: Method = (20, 40)
CHANNEL_CLOSED: Method = (20, 41)
PUBLISH: Method = (60, 40)
DELIVER: Method = (60, 60)

_HEAD = Struct(">BHI")
_NAME = Struct(">HH")
_METHOD, _HEADER, _BODY = 1, 2, 3
_GREETING = 8


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: int
    channel: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        return self.raw[_HEAD.size : -1]

    @property
    def method(self) -> Method | None:
        return _NAME.unpack_from(self.payload) if self.kind == _METHOD else None


@dataclass(slots=True)
class _Message:
    """A delivery of which the frames are gathered."""

    frames: list[_Frame] = field(default_factory=list)
    missing: int | None = None

    @property
    def consumer(self) -> tuple[int, bytes]:
        payload = self.frames[0].payload
        return self.frames[0].channel, payload[5 : 5 + payload[4]]

    @property
    def raw(self) -> bytes:
        return b"".join(frame.raw for frame in self.frames)

    def add(self, frame: _Frame) -> bool:
        """Take a frame; tells whether it was the last one."""
        self.frames.append(frame)
        if frame.kind == _HEADER:
            self.missing = int.from_bytes(frame.payload[4:12])
        elif frame.kind == _BODY:
            assert self.missing is not None
            self.missing -= len(frame.payload)
        return self.missing == 0


class LossyWire:
    """A port in front of a broker."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.methods: Counter[Method] = Counter()
        """How often each method was said, by either side."""
        self.frames = 0
        """How many frames have passed, either way; heartbeats do not count."""
        self.lost = 0
        self._target = target
        self._unwanted: list[bytes] = []
        self._is_dead = False
        self._held: Method | None = None
        self._is_holding = asyncio.Event()
        self._may_go_on = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._joined, LOOPBACK, self.port)
        return self

    async def close(self) -> None:
        """Stop listening and end all connections."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose(self, text: str) -> None:
        """Lose the next delivery that says *text*."""
        self._unwanted.append(text.encode())

    def lose_everything(self) -> None:
        """Lose every delivery from now on."""
        self._is_dead = True

    async def hold(self, method: Method) -> None:
        """Wait until a client says *method*, and let nothing of that client pass from there on until ``go_on``."""
        self._held = method
        await self._is_holding.wait()

    def go_on(self) -> None:
        """Let pass what is held."""
        self._held = None
        self._may_go_on.set()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await asyncio.open_connection(LOOPBACK, self._target)
        try:
            back.write(await reader.readexactly(_GREETING))
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, back))
                both.create_task(self._pass_back(there, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass  # Either side has left.
        finally:
            for end in (writer, back):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await self._next(reader)
            if frame.method is not None and frame.method == self._held:
                self._is_holding.set()
                await self._may_go_on.wait()
            writer.write(frame.raw)

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arriving: dict[int, _Message] = {}
        lost: dict[tuple[int, bytes], list[_Message]] = {}
        while True:
            frame = await self._next(reader)
            if frame.method == DELIVER:
                arriving[frame.channel] = _Message()
            elif frame.method in (CHANNEL_CLOSE, CHANNEL_CLOSED):
                lost = {consumer: messages for consumer, messages in lost.items() if consumer[0] != frame.channel}
            message = arriving.get(frame.channel)
            if message is None:
                writer.write(frame.raw)
            elif message.add(frame):
                del arriving[frame.channel]
                writer.write(b"".join(each.raw for each in self._after_losses(message, lost)))

    def _after_losses(self, message: _Message, lost: dict[tuple[int, bytes], list[_Message]]) -> Iterator[_Message]:
        unwanted = next((text for text in self._unwanted if text in message.raw), None)
        if unwanted is not None:
            self._unwanted.remove(unwanted)
        if unwanted is not None or self._is_dead:
            self.lost += 1
            lost.setdefault(message.consumer, []).append(message)
        else:
            yield from lost.pop(message.consumer, ())
            yield message

    async def _next(self, reader: asyncio.StreamReader) -> _Frame:
        head = await reader.readexactly(_HEAD.size)
        kind, channel, size = _HEAD.unpack(head)
        frame = _Frame(kind, channel, head + await reader.readexactly(size + 1))
        if kind in (_METHOD, _HEADER, _BODY):
            self.frames += 1
        if frame.method is not None:
            self.methods[frame.method] += 1
        return frame
