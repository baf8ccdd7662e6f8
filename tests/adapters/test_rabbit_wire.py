"""What comes in is taken apart rightly, however the network cuts it up."""

import asyncio
import struct
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from aiki.adapters.broker.rabbitmq import wire as wire_module
from aiki.adapters.broker.rabbitmq.wire import Delivered, Wire

BODY_MAX = 10


def delivery(channel: int, tag: int, body: bytes, *, redelivered: bool = False) -> list[bytes]:
    parts = [body[start : start + BODY_MAX] for start in range(0, len(body), BODY_MAX)]
    return [
        frame.marshal(commands.Basic.Deliver("aiki-1", tag, redelivered, "aiki.events", "3"), channel),
        frame.marshal(ContentHeader(0, len(body), commands.Basic.Properties(correlation_id=f"run-{tag}")), channel),
        *(frame.marshal(ContentBody(part), channel) for part in parts),
    ]


def a_wire(data: bytes, cuts: Sequence[int] = ()) -> tuple[Wire, asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        if data[start:end]:
            reader.feed_data(data[start:end])
    reader.feed_eof()
    return Wire(reader), reader


async def read_as_the_driver_does(wire: Wire) -> list[bytes]:
    frames = []
    with suppress(asyncio.IncompleteReadError):
        while not wire.at_eof():
            head = await wire.readexactly(1) + await wire.readexactly(6)
            size = struct.unpack(">I", head[3:])[0]
            frames.append(head + await wire.readexactly(size + 1))
    return frames


def told(deliveries: Sequence[Delivered]) -> list[tuple[int, bytes, bool, str | None]]:
    return [(one.tag, one.body, one.redelivered, one.properties.correlation_id) for one in deliveries]


@given(
    bodies=st.lists(st.binary(max_size=35), max_size=5),
    sizes=st.lists(st.integers(1, 40), max_size=60),
)
def test_deliveries_are_whole_however_they_are_cut_up(bodies: list[bytes], sizes: list[int]) -> None:
    async def check() -> None:
        data = b"".join(b"".join(delivery(1, tag, body)) for tag, body in enumerate(bodies, 1))
        reader = asyncio.StreamReader()
        wire = Wire(reader)
        arrived: list[Delivered] = []
        wire.deliver(1, arrived.append)
        reading = asyncio.ensure_future(read_as_the_driver_does(wire))
        at = 0
        for size in [*sizes, len(data)]:
            reader.feed_data(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        reader.feed_eof()

        assert await reading == []
        assert told(arrived) == [(tag, body, False, f"run-{tag}") for tag, body in enumerate(bodies, 1)]

    asyncio.run(check())


async def test_everything_else_reaches_the_driver_unchanged_and_in_order() -> None:
    others = [
        frame.marshal(commands.Basic.ConsumeOk("aiki-1"), 1),
        frame.marshal(Heartbeat(), 0),
        *delivery(2, 7, b"for the driver"),
        frame.marshal(commands.Basic.Cancel("aiki-1"), 1),
    ]
    ours = [delivery(1, tag, b"x" * tag) for tag in range(1, 8)]
    mixed = [piece for pair in zip(others, ours, strict=True) for piece in (pair[0], *pair[1])]
    wire, _ = a_wire(b"".join(mixed))
    arrived: list[Delivered] = []
    wire.deliver(1, arrived.append)

    assert await read_as_the_driver_does(wire) == others
    assert [one.tag for one in arrived] == [1, 2, 3, 4, 5, 6, 7]


async def test_deliveries_of_two_channels_may_be_interleaved() -> None:
    one, two = delivery(1, 1, b"a" * 25, redelivered=True), delivery(2, 1, b"b" * 25)
    wire, _ = a_wire(b"".join(piece for pair in zip(one, two, strict=True) for piece in pair))
    first: list[Delivered] = []
    second: list[Delivered] = []
    wire.deliver(1, first.append)
    wire.deliver(2, second.append)

    assert await read_as_the_driver_does(wire) == []
    assert told(first) == [(1, b"a" * 25, True, "run-1")]
    assert told(second) == [(1, b"b" * 25, False, "run-1")]


async def test_who_has_left_gets_nothing_more() -> None:
    wire, _ = a_wire(b"".join([*delivery(1, 1, b"first"), frame.marshal(Heartbeat(), 0), *delivery(1, 2, b"second")]))
    arrived: list[Delivered] = []
    leave = wire.deliver(1, arrived.append)

    beat = await wire.readexactly(1) + await wire.readexactly(6) + await wire.readexactly(1)
    leave()

    assert beat == frame.marshal(Heartbeat(), 0)
    assert len(await read_as_the_driver_does(wire)) == 3
    assert [one.tag for one in arrived] == [1]


async def test_a_number_that_is_used_again_belongs_to_whoever_took_it_last() -> None:
    half, beat = delivery(1, 1, b"never complete")[0], frame.marshal(Heartbeat(), 0)
    wire, _ = a_wire(b"".join([half, beat, *delivery(1, 1, b"whole")]))
    first: list[Delivered] = []
    second: list[Delivered] = []
    leave = wire.deliver(1, first.append)
    assert await wire.readexactly(1) + await wire.readexactly(6) + await wire.readexactly(1) == beat

    wire.deliver(1, second.append)
    leave()

    assert await read_as_the_driver_does(wire) == []
    assert (first, told(second)) == ([], [(1, b"whole", False, "run-1")])


async def test_what_is_left_of_a_delivery_that_nobody_waits_for_goes_to_the_driver() -> None:
    half, *rest = delivery(1, 1, b"a" * 25)
    beat = frame.marshal(Heartbeat(), 0)
    wire, _ = a_wire(b"".join([half, beat, *rest]))
    leave = wire.deliver(1, lambda _: None)
    assert await wire.readexactly(1) + await wire.readexactly(6) + await wire.readexactly(1) == beat

    leave()

    assert await read_as_the_driver_does(wire) == rest


async def test_the_driver_hears_a_heartbeat_while_there_is_nothing_but_deliveries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_module, "SILENCE_SECONDS", -1.0)
    wire, _ = a_wire(b"".join(delivery(1, 1, b"x")))
    wire.deliver(1, lambda _: None)

    assert await read_as_the_driver_does(wire) == [frame.marshal(Heartbeat(), 0)]


async def test_a_broker_of_another_version_is_understood_to_say_so() -> None:
    wire, _ = a_wire(b"AMQP\x00\x00\x09\x01")

    assert await wire.readexactly(1) + await wire.readexactly(6) == b"AMQP\x00\x00\x09"
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.readexactly(2)


async def test_the_end_of_the_connection_is_told() -> None:
    whole = b"".join(delivery(1, 1, b"never complete"))
    wire, _ = a_wire(whole[:-1])
    arrived: list[Delivered] = []
    wire.deliver(1, arrived.append)

    assert await read_as_the_driver_does(wire) == []
    assert arrived == []


async def test_properties_that_cannot_be_read_are_none() -> None:
    head, header, body = delivery(1, 1, b"x")
    broken = header[:19] + b"\xff\xff" + header[21:]
    wire, _ = a_wire(head + broken + body)
    arrived: list[Delivered] = []
    wire.deliver(1, arrived.append)

    await read_as_the_driver_does(wire)

    assert arrived[0].body == b"x"
    assert arrived[0].properties.correlation_id is None
