"""Frames packed by hand say what the library's own reader reads."""

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from aiki.adapters.broker.rabbitmq.frames import ack_frame, message_frames
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing

short = st.text(max_size=60)
optional = st.none() | st.text(min_size=1, max_size=60)
channels = st.integers(1, 65535)


def frames_of(data: bytes) -> list[object]:
    found: list[object] = []
    while data:
        size, _, value = frame.unmarshal(data)
        found.append(value)
        data = data[size:]
    return found


@given(
    channel=channels,
    message=st.builds(
        Outgoing,
        exchange=st.from_regex(r"[a-z.]{0,40}", fullmatch=True),
        routing_key=short,
        body=st.binary(max_size=300),
        type=short,
        correlation_id=optional,
        kept=st.booleans(),
        returned=st.booleans(),
        trace=optional,
        copy_to=optional,
        reply_to=optional,
        expires_ms=st.none() | st.integers(1, 10**9),
    ),
    frame_max=st.sampled_from([0, 50, 131072]),
)
def test_a_message_is_read_as_it_was_meant(channel: int, message: Outgoing, frame_max: int) -> None:
    packed = message_frames(channel, message, message_id="id-1", seconds=1_700_000_000, frame_max=frame_max)

    publish, header, *bodies = frames_of(b"".join(packed))
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (message.exchange, message.routing_key)
    assert publish.mandatory is message.returned
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    properties = header.properties
    assert properties.content_type == "application/json"
    assert properties.app_id == "aiki"
    assert properties.message_id == "id-1"
    assert (properties.message_type or "") == message.type
    assert properties.delivery_mode == (2 if message.kept else 1)
    assert properties.correlation_id == message.correlation_id
    assert properties.reply_to == message.reply_to
    assert properties.expiration == (None if message.expires_ms is None else str(message.expires_ms))
    headers = properties.headers or {}
    assert headers.get("traceparent") == message.trace
    assert headers.get("CC") == (None if message.copy_to is None else [message.copy_to])
    parts = [one.value for one in bodies if isinstance(one, ContentBody)]
    assert len(parts) == len(bodies)
    assert b"".join(parts) == message.body
    assert all(len(part) + 8 <= frame_max for part in parts) or not frame_max


@given(channel=channels, tag=st.integers(1, 2**63 - 1), multiple=st.booleans())
def test_an_acknowledgement_is_read_as_it_was_meant(channel: int, tag: int, multiple: bool) -> None:
    packed = ack_frame(channel, tag, multiple=multiple)

    (ack,) = frames_of(packed)
    assert isinstance(ack, commands.Basic.Ack)
    assert ack.delivery_tag == tag
    assert ack.multiple is multiple
    assert frame.unmarshal(packed)[1] == channel
