"""AMQP frames, packed by hand: what is sent thousands of times a second.

The driver's own publish costs ten times as much, most of it for a task, a lock
and a timeout per message (docs/decisions/0001). Here a message is bytes, so that
hundreds leave with one write. Everything rare goes through the driver.
"""

from struct import Struct

from pamqp import encode
from pamqp.common import FieldTable

from aiki.adapters.broker.rabbitmq.outgoing import Outgoing

__all__ = ["ack_frame", "cancel_frame", "give_back_frame", "message_frames"]

_FRAME = Struct(">BHI")
_HEADER = Struct(">HHQH")
_ACK = Struct(">BHIHHQBB")
_U64 = Struct(">Q")

_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_END_BYTE = 0xCE
_BASIC, _CANCEL, _PUBLISH, _DELIVERY_ACK, _REJECT = 60, 30, 40, 80, 90
_ACK_SIZE = 13
_PUBLISH_HEAD = Struct(">HHH").pack(_BASIC, _PUBLISH, 0)
_CANCEL_HEAD = Struct(">HH").pack(_BASIC, _CANCEL)
_MANDATORY = {True: b"\x01", False: b"\x00"}

# Type, channel, size and the end mark.
FRAME_OVERHEAD = 8

# Flags of the properties, in the order in which they follow.
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _PRIORITY, _CORRELATION_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 11, 1 << 10
_REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 9, 1 << 8, 1 << 7, 1 << 6, 1 << 5, 1 << 3
_ALWAYS = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP | _TYPE | _APP_ID
_MODE = {True: b"\x02", False: b"\x01"}


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data


_JSON = _short("application/json")
_AIKI = _short("aiki")


def message_frames(channel: int, message: Outgoing, *, message_id: str, seconds: int, frame_max: int) -> list[bytes]:
    """Pack *message* for *channel*, as pieces to be joined; *seconds* since 1970 is its timestamp."""
    method = _PUBLISH_HEAD + _short(message.exchange) + _short(message.routing_key) + _MANDATORY[message.returned]
    flags, properties = _properties(message, message_id, seconds)
    header = _HEADER.pack(_BASIC, 0, len(message.body), flags) + properties
    pieces = [
        _FRAME.pack(_METHOD, channel, len(method)),
        method,
        _END,
        _FRAME.pack(_CONTENT_HEADER, channel, len(header)),
        header,
        _END,
    ]
    body = message.body
    room = frame_max - FRAME_OVERHEAD if frame_max else len(body) or 1
    for start in range(0, len(body), room):
        part = body[start : start + room]
        pieces += (_FRAME.pack(_BODY, channel, len(part)), part, _END)
    return pieces


def _properties(message: Outgoing, message_id: str, seconds: int) -> tuple[int, bytes]:
    flags, packed = _ALWAYS, [_JSON]
    if message.trace is not None or message.copy_to is not None:
        flags |= _HEADERS
        packed.append(_headers(message))
    packed.append(_MODE[message.kept])
    if message.priority is not None:
        flags |= _PRIORITY
        packed.append(bytes((message.priority,)))
    for flag, text in (
        (_CORRELATION_ID, message.correlation_id),
        (_REPLY_TO, message.reply_to),
        (_EXPIRATION, None if message.expires_ms is None else str(message.expires_ms)),
    ):
        if text is not None:
            flags |= flag
            packed.append(_short(text))
    packed += (_short(message_id), _U64.pack(seconds), _short(message.type), _AIKI)
    return flags, b"".join(packed)


def _headers(message: Outgoing) -> bytes:
    headers: FieldTable = {}
    if message.trace is not None:
        headers["traceparent"] = message.trace
    if message.copy_to is not None:
        headers["CC"] = [message.copy_to]
    return encode.field_table(headers)


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Pack an acknowledgement of *tag*, or with *multiple* of everything up to it."""
    return _ACK.pack(_METHOD, channel, _ACK_SIZE, _BASIC, _DELIVERY_ACK, tag, multiple, _END_BYTE)


def give_back_frame(channel: int, tag: int) -> bytes:
    """Pack what gives the delivery *tag* back to its queue."""
    return _ACK.pack(_METHOD, channel, _ACK_SIZE, _BASIC, _REJECT, tag, True, _END_BYTE)


def cancel_frame(channel: int, consumer: str) -> bytes:
    """Pack the cancellation of *consumer*, which the broker is not to answer."""
    method = _CANCEL_HEAD + _short(consumer) + b"\x01"
    return _FRAME.pack(_METHOD, channel, len(method)) + method + _END
