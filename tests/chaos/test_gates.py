"""Gates pass everything on, until they are told otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from aiki.testing.chaos.gates import Gate, Way
from aiki.testing.servers import free_port

PATIENCE = 5.0
# How long nothing has to come until we believe that nothing comes.
SILENCE = 0.1


@asynccontextmanager
async def a_gate() -> AsyncIterator[Gate]:
    """A gate in front of a server that says everything back."""
    serving: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.get_running_loop().create_task(echo(reader, writer)))

    port = free_port()
    server = await asyncio.start_server(accept, "127.0.0.1", port)
    gate = await Gate(port).start()
    try:
        yield gate
    finally:
        await gate.close()
        server.close()
        # Whoever was cut off hears of it in a moment.
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*serving)


@asynccontextmanager
async def a_connection(gate: Gate) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _receive(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(count)


async def test_everything_passes_in_order() -> None:
    data = bytes(range(256)) * 8_000
    async with a_gate() as gate, a_connection(gate) as (reader, writer):
        writer.write(data)

        assert await _receive(reader, len(data)) == data


async def test_a_cut_ends_connections_and_new_ones_may_be_made() -> None:
    async with a_gate() as gate:
        async with a_connection(gate) as (reader, writer):
            writer.write(b"one")
            await _receive(reader, 3)

            gate.cut()

            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await _receive(reader, 1)
        async with a_connection(gate) as (reader, writer):
            writer.write(b"two")
            assert await _receive(reader, 3) == b"two"


async def test_a_shut_gate_refuses_everybody_until_it_is_opened_again() -> None:
    async with a_gate() as gate:
        gate.shut()
        async with a_connection(gate) as (reader, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await _receive(reader, 1)

        gate.reopen()

        async with a_connection(gate) as (reader, writer):
            writer.write(b"two")
            assert await _receive(reader, 3) == b"two"


@pytest.mark.parametrize("way", [Way.THERE, Way.BACK, Way.BOTH])
async def test_what_is_held_arrives_when_it_is_released_and_not_before(way: Way) -> None:
    async with a_gate() as gate, a_connection(gate) as (reader, writer):
        writer.write(b"one")
        await _receive(reader, 3)

        gate.hold(way)
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE):
                await reader.readexactly(1)
        gate.release()

        assert await _receive(reader, 3) == b"two"


async def test_a_connection_that_is_made_while_the_gate_holds_is_silent() -> None:
    async with a_gate() as gate:
        gate.hold(Way.BOTH)
        async with a_connection(gate) as (reader, writer):
            writer.write(b"one")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    await reader.readexactly(1)
            gate.release()

            assert await _receive(reader, 3) == b"one"


async def test_a_slow_gate_keeps_the_order_when_it_becomes_fast_again() -> None:
    async with a_gate() as gate, a_connection(gate) as (reader, writer):
        gate.delay = SILENCE
        writer.write(b"one")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE):
                await reader.readexactly(1)
        gate.delay = 0.0
        writer.write(b"two")

        assert await _receive(reader, 6) == b"onetwo"


async def test_where_no_server_listens_connections_end_at_once() -> None:
    gate = await Gate(free_port()).start()
    try:
        async with a_connection(gate) as (reader, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await _receive(reader, 1)
    finally:
        await gate.close()


async def test_the_end_of_what_one_says_reaches_the_other() -> None:
    async with a_gate() as gate, a_connection(gate) as (reader, writer):
        writer.write(b"one")
        await _receive(reader, 3)

        writer.write_eof()

        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
