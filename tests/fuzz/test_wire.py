"""Properties and routing keys that the driver cannot read never reach it."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.broker.rabbitmq.frames import message_frames
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing, command_message
from aiki.adapters.broker.rabbitmq.wire import readable_frame
from aiki.codec.messages import encode_events
from aiki.engine.dispatching import execute_run
from aiki.testing.builders import T0, a_run
from aiki.testing.contracts.broker_parts.system import bodies_of, collect, signal
from tests.fuzz.attempts import fuzzed
from tests.fuzz.raw_properties import PROPERTIES, content_header, publish_raw

METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"


def properties_of(payload: bytes) -> commands.Basic.Properties:
    header = ContentHeader()
    header.unmarshal(payload[:-1])
    return header.properties


def ours(**changes: object) -> bytes:
    fields = {"exchange": "e", "routing_key": "k", "body": b"{}", "type": "ExecuteRun", "correlation_id": "run-1"}
    message = Outgoing(**{**fields, **changes})  # type: ignore[arg-type]
    return message_frames(1, message, message_id="m-1", seconds=1_800_000_000, frame_max=131072)[4] + END


@fuzzed
@given(flags=st.integers(0, 0xFFFF), properties=st.binary(max_size=80))
@example(flags=1 << 6, properties=b"\xff" * 8)
@example(flags=1, properties=b"\x00\x01" * 8)
def test_any_header_can_be_read_behind_the_guard(flags: int, properties: bytes) -> None:
    payload = content_header(flags, properties, size=7) + END

    guarded = readable_frame(HEADER, payload)

    assert len(guarded) == len(payload)
    header = ContentHeader()
    header.unmarshal(guarded[:-1])
    assert header.body_size == 7


@pytest.mark.parametrize("name", [name for name in PROPERTIES if name != "a death that never was"])
def test_a_header_that_breaks_the_driver_arrives_without_properties(name: str) -> None:
    payload = content_header(*PROPERTIES[name], size=7) + END
    with pytest.raises((ValueError, OverflowError, struct.error, RecursionError)):
        properties_of(payload)

    found = properties_of(readable_frame(HEADER, payload))

    assert (found.correlation_id, found.timestamp, found.message_type, found.headers) == (None, None, None, None)


@pytest.mark.parametrize("changes", [{}, {"trace": "00-ä-1"}, {"copy_to": "client.c"}, {"type": "ö", "priority": 9}])
def test_what_can_be_read_passes_unchanged(changes: dict[str, object]) -> None:
    payload = ours(**changes)

    assert readable_frame(HEADER, payload) is payload
    assert readable_frame(BODY, payload) is payload


@pytest.mark.parametrize("method", [commands.Basic.Deliver("c-1", 2**63 - 1, True, "x", "key")])
def test_a_routing_key_that_is_no_text_is_replaced(method: commands.Basic.Deliver) -> None:
    packed = struct.pack(">I", method.index) + method.marshal() + END
    assert readable_frame(METHOD, packed) is packed

    guarded = readable_frame(METHOD, packed.replace(b"key", b"\xffe\xfe"))

    found = commands.Basic.Deliver()
    found.unmarshal(guarded[4:-1])
    assert (found.routing_key, found.delivery_tag, found.redelivered) == ("???", 2**63 - 1, True)


@pytest.mark.parametrize(("priority", "packed"), [(-1, None), (0, None), (9, 9), (255, 255), (256, 255), (10**30, 255)])
def test_a_priority_of_any_size_becomes_one_that_the_broker_knows(priority: int, packed: int | None) -> None:
    message = command_message(execute_run(a_run(priority=priority, trace="x" * 70_000), now=T0, recovering=False), 8)

    pieces = message_frames(1, message, message_id="m-1", seconds=1, frame_max=131072)
    found = properties_of(pieces[4] + END)
    assert found.priority == packed
    assert found.headers is None, "a trace that is none is not worth a frame that is too long"


async def test_a_message_with_unreadable_properties_is_taken_like_any_other(amqp_url: str) -> None:
    broker = RabbitBroker(amqp_url, partitions=1)
    await broker.start()
    try:
        await publish_raw(amqp_url, "aiki.events.0", encode_events([signal(1)]))
        subscription = await broker.consume_events(0, prefetch=100)

        deliveries = await collect(subscription, len(PROPERTIES))

        assert bodies_of(deliveries) == [(signal(1),)] * len(PROPERTIES)
        assert not any(delivery.redelivered for delivery in deliveries)
        await subscription.acknowledge(deliveries)
    finally:
        await broker.close()
