"""Publishing in windows: what is submitted while one write is under way leaves with the next.

Alone, a message leaves at once; under load, one write carries hundreds. Each
message has its own fate (confirmed, returned, refused), each submission of
several messages is awaited once. Nothing here waits in vain: when the channel is
lost, every submission ends, and says whether anything of it may have arrived.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import count
from typing import Any, cast
from uuid import uuid4

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import PublishError

from aiki.adapters.broker.rabbitmq.frames import message_frames
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.trouble import reason_of
from aiki.errors import BrokerUnavailableError, PublishUncertainError
from aiki.observability import get_logger

__all__ = ["PublishChannel", "Refusal", "Submission"]

log = get_logger(__name__)

# One write of 500 messages costs as little per message as larger ones, and is confirmed within 20 ms.
WINDOW_MESSAGES = 500
# Large messages leave alone rather than be copied together.
WINDOW_BYTES = 1024 * 1024


class Refusal(Enum):
    """Why the broker did not take a message."""

    UNROUTABLE = "unroutable"  # No queue is bound for it; it certainly is nowhere.
    NACKED = "nacked"  # A queue could not confirm it; it may be there or not.


class Submission:
    """Messages that are awaited together."""

    __slots__ = ("done", "messages", "open", "refused", "withdrawn", "written")

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self.messages = messages
        self.done: asyncio.Future[Mapping[int, Refusal]] = asyncio.get_running_loop().create_future()
        """By index what the broker did not take; raises as ``PublishChannel.submit`` says."""
        self.open = len(messages)
        self.written = 0
        self.refused: dict[int, Refusal] = {}
        self.withdrawn = False

    def withdraw(self) -> bool:
        """Send nothing more of it, and tell whether nothing was sent at all."""
        self.withdrawn = True
        if not self.done.done():
            self.done.cancel()
        return self.written == 0

    def settle(self, index: int, refusal: Refusal | None) -> None:
        """Note the fate of one message."""
        if refusal is not None:
            self.refused[index] = refusal
        self.open -= 1
        if self.open == 0 and not self.done.done():
            self.done.set_result(self.refused)

    def fail(self, reason: str) -> None:
        """End it: the channel is gone."""
        if self.done.done():
            return
        if self.written == 0:
            self.done.set_exception(BrokerUnavailableError(f"nothing was sent: {reason}"))
        else:
            self.done.set_exception(
                PublishUncertainError(
                    f"{reason} before RabbitMQ confirmed what was sent", hint="it may have arrived; send it again"
                )
            )


class _Confirmation:
    """Stands where the driver keeps a future per message, and counts for its submission."""

    __slots__ = ("_forget", "_index", "_message_id", "_submission")

    def __init__(self, submission: Submission, index: int, message_id: str, forget: dict[str, int]) -> None:
        self._submission = submission
        self._index = index
        self._message_id = message_id
        self._forget = forget

    def done(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def set_result(self, _frame: object) -> None:
        self._forget.pop(self._message_id, None)
        self._submission.settle(self._index, None)

    def set_exception(self, error: BaseException) -> None:
        self._forget.pop(self._message_id, None)
        self._submission.settle(self._index, Refusal.UNROUTABLE if isinstance(error, PublishError) else Refusal.NACKED)


class PublishChannel:
    """One channel with publisher confirms, used by nobody else. It ends with its connection and is not revived."""

    def __init__(self, channel: Channel) -> None:
        """Publish on *channel*, which has confirms on and was not used yet."""
        self._channel = channel
        self._frame_max = channel.connection.connection_tune.frame_max
        self._prefix = uuid4().hex[:16]
        self._numbers = count(1)
        self._waiting: deque[tuple[Submission, int]] = deque()
        self._submissions: set[Submission] = set()
        self._submitted = asyncio.Event()
        self._writer = asyncio.create_task(self._write_windows(), name="aiki-rabbitmq-publish")
        self._writer.add_done_callback(self._on_writer_ended)
        self._lost: str | None = None
        self.closing = channel.closing
        self.closing.add_done_callback(self._on_closed)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be published here any more."""
        return self._lost is not None

    def submit(self, messages: Sequence[Outgoing]) -> Submission:
        """Hand over *messages*, at least one; await ``done`` of what is returned.

        Two submissions leave in the order in which they were submitted. ``done`` raises
        ``BrokerUnavailableError`` if the channel was lost before anything was sent, and
        ``PublishUncertainError`` if it was lost later.
        """
        submission = Submission(messages)
        if self._lost is not None:
            submission.fail(self._lost)
            return submission
        self._submissions.add(submission)
        submission.done.add_done_callback(lambda _: self._submissions.discard(submission))
        self._waiting.extend((submission, index) for index in range(len(messages)))
        self._submitted.set()
        return submission

    async def close(self, reason: str) -> None:
        """End every submission and stop writing. The channel itself goes with its connection."""
        self.lose(reason)
        await asyncio.gather(self._writer, return_exceptions=True)

    def lose(self, reason: str) -> None:
        """End every submission: the channel is gone."""
        if self._lost is not None:
            return
        self._lost = reason
        self._writer.cancel()
        self._waiting.clear()
        for submission in tuple(self._submissions):
            submission.fail(reason)

    def _on_writer_ended(self, writer: asyncio.Task[None]) -> None:
        """Whatever breaks the writer, nobody may wait for it: the channel is as good as lost."""
        error = None if writer.cancelled() else writer.exception()
        if error is not None:
            log.error("broker.cannot_pack", exc_info=error)
            self.lose(f"a message could not be packed: {reason_of(error)}")

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.lose(reason_of(None if closing.cancelled() else closing.exception()))

    async def _write_windows(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._submitted.wait()
            self._submitted.clear()
            while self._waiting:
                # While the broker is short of resources nothing is written: what is still here can be
                # withdrawn for certain, and what the operating system buffers cannot.
                await self._channel.connection.ready()
                window = self._take_window()
                if window:
                    written = loop.create_future()
                    await self._channel.write_queue.put(ChannelFrame(window, False, written))
                    await written

    def _take_window(self) -> bytes:
        channel, waiting = self._channel, self._waiting
        confirmations = cast(dict[int, Any], channel.confirmations)
        ids = channel.message_id_delivery_tag
        seconds = int(time.time())
        pieces: list[bytes] = []
        size = taken = 0
        while waiting and taken < WINDOW_MESSAGES and size < WINDOW_BYTES:
            submission, index = waiting.popleft()
            if submission.withdrawn:
                continue
            message = submission.messages[index]
            message_id = f"{self._prefix}-{next(self._numbers)}"
            pieces += message_frames(
                channel.number, message, message_id=message_id, seconds=seconds, frame_max=self._frame_max
            )
            channel.delivery_tag += 1
            confirmations[channel.delivery_tag] = _Confirmation(submission, index, message_id, ids)
            if message.returned:
                ids[message_id] = channel.delivery_tag  # How the driver finds what was returned.
            submission.written += 1
            size += len(message.body)
            taken += 1
        return b"".join(pieces)
