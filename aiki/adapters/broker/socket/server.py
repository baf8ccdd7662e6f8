"""The server's end: hands what arrives on the socket to a broker in this process."""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiki.adapters.broker.socket.frames import PROTOCOL, Frame, FrameError, Kind, listen, read_frame
from aiki.asynchronous import end
from aiki.codec.messages import decode_events, decode_query, encode_answer, encode_notice
from aiki.errors import AikiError, DeliveryLostError, UndecodableError, UnroutableError
from aiki.observability import get_logger
from aiki.ports.broker import ClientBroker, NoticeSubscription

__all__ = ["SocketServer"]

log = get_logger(__name__)

# Requests of one connection under way at the same time; more wait in its socket.
_REQUESTS_MAX = 256


class SocketServer:
    """Listens at a path, for other processes of the same user, on behalf of *broker*."""

    def __init__(self, broker: ClientBroker, path: Path) -> None:
        self._broker = broker
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listen(self._path))

    async def close(self) -> None:
        """Listen no more, and end every connection; safe to call twice."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._path.unlink(missing_ok=True)
        server.close()
        connections = dict(self._connections)
        await end(*connections)
        await asyncio.gather(*(writer.wait_closed() for writer in connections.values()), return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # It came while we were closing.
            writer.close()
            return
        task = asyncio.create_task(_Connection(self._broker, reader, writer).serve(), name="aiki-socket-connection")
        self._connections[task] = writer
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        # Here and not in the task: one that is cancelled before it begins never gets to its own end.
        self._connections.pop(task).close()


class _Connection:
    """One client process."""

    def __init__(self, broker: ClientBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._broker = broker
        self._reader = reader
        self._writer = writer
        self._slots = asyncio.Semaphore(_REQUESTS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[int, NoticeSubscription] = {}

    async def serve(self) -> None:
        """Answer until the client goes, or the server closes."""
        try:
            self._send(Frame.json(Kind.HELLO, 0, {"protocol": PROTOCOL, "partitions": self._broker.partitions}))
            while True:
                frame = await read_frame(self._reader)
                await self._slots.acquire()
                self._spawn(self._answer(frame)).add_done_callback(lambda _task: self._slots.release())
        except FrameError as error:
            log.warning("socket.refused", reason=error.message)
        except (asyncio.IncompleteReadError, OSError):
            pass  # The client is gone, as clients go.
        finally:
            await self._end()

    async def _end(self) -> None:
        await end(*self._tasks)
        for subscription in self._subscriptions.values():
            await subscription.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, frame: Frame) -> None:
        try:
            answer = await self._handle(frame)
        except AikiError as error:
            content: dict[str, object] = {
                "type": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, UnroutableError):
                content |= {"exchange": error.exchange, "routing_key": error.routing_key}
            answer = Frame.json(Kind.ERROR, frame.number, content)
        self._send(answer)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def _handle(self, frame: Frame) -> Frame:
        try:
            match frame.kind:
                case Kind.PUBLISH:
                    timeout, partition, body = frame.publish_parts()
                    await self._broker.publish_events(partition, decode_events(body), timeout=timeout)
                case Kind.ASK:
                    timeout, body = frame.ask_parts()
                    answer = await self._broker.ask(decode_query(body), timeout=timeout)
                    return Frame(Kind.ANSWER, frame.number, encode_answer(answer))
                case Kind.SUBSCRIBE:
                    await self._subscribe(frame)
                case Kind.UNSUBSCRIBE | Kind.WATCH | Kind.UNWATCH:
                    await self._change(frame)
                case _:
                    raise FrameError(f"a client does not send {frame.kind.name}")
        except struct.error as error:
            raise UndecodableError("wrong_content", str(error)) from error
        return Frame(Kind.DONE, frame.number)

    async def _subscribe(self, frame: Frame) -> None:
        subscription = await self._broker.consume_notices(frame.body.decode())
        self._subscriptions[frame.number] = subscription
        self._spawn(self._forward(frame.number, subscription))

    async def _change(self, frame: Frame) -> None:
        """Change a subscription. The body names it, and the run."""
        content = frame.content()
        number, run_id = int(str(content["subscription"])), str(content.get("run_id", ""))
        subscription = self._subscriptions.get(number)
        if subscription is None:
            raise DeliveryLostError("there is no such subscription")
        if frame.kind is Kind.WATCH:
            await subscription.watch(run_id)
        elif frame.kind is Kind.UNWATCH:
            await subscription.unwatch(run_id)
        else:
            del self._subscriptions[number]
            await subscription.close()

    async def _forward(self, number: int, subscription: NoticeSubscription) -> None:
        try:
            while True:
                deliveries = await subscription.receive()
                for delivery in deliveries:
                    self._send(Frame(Kind.NOTICE, number, encode_notice(delivery.body)))
                await self._writer.drain()
                await subscription.acknowledge(deliveries)
        except DeliveryLostError:
            self._subscriptions.pop(number, None)
            self._send(Frame(Kind.LOST, number))
        except OSError:
            pass  # The client is gone; the connection's reader notices too.

    def _send(self, frame: Frame) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame.encode())
