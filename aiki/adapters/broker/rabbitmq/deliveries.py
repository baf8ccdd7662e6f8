"""Deliveries off the wire, without a task per message.

The driver starts two tasks for each delivery. Here a function takes its place and
is called with the finished message. That place is private to the driver
(docs/decisions/0001): where it is missing, the public callback serves, only slower.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiormq.abc import ConsumerCallback, DeliveredMessage
from aiormq.channel import Channel
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

__all__ = ["Arrive", "collect_deliveries"]

Arrive = Callable[[commands.Basic.Deliver, ContentHeader, bytes], None]

_HOOK = "_on_deliver_frame"
_NEXT_FRAME = "_get_frame"


def collect_deliveries(channel: Channel, arrive: Arrive) -> ConsumerCallback:
    """Have *arrive* called with each delivery on *channel*; returns the callback to consume with.

    It must neither wait nor raise: the reader of the channel calls it.
    """
    if hasattr(channel, _HOOK) and hasattr(channel, _NEXT_FRAME):
        setattr(channel, _HOOK, _reading(getattr(channel, _NEXT_FRAME), arrive))

    async def on_message(message: DeliveredMessage) -> None:
        if isinstance(message.delivery, commands.Basic.Deliver):
            arrive(message.delivery, message.header, message.body)

    return on_message


def _reading(
    next_frame: Callable[[], Awaitable[Any]], arrive: Arrive
) -> Callable[[commands.Basic.Deliver], Awaitable[None]]:
    async def on_deliver(deliver: commands.Basic.Deliver) -> None:
        header = await next_frame()
        if not isinstance(header, ContentHeader):
            raise ValueError(f"a delivery was followed by {header!r}")
        arrive(deliver, header, await _read_body(next_frame, header.body_size or 0))

    return on_deliver


async def _read_body(next_frame: Callable[[], Awaitable[Any]], size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        frame = await next_frame()
        if not isinstance(frame, ContentBody):
            raise ValueError(f"a body was interrupted by {frame!r}")
        parts.append(frame.value)
        size -= len(frame.value)
    return parts[0] if len(parts) == 1 else b"".join(parts)
