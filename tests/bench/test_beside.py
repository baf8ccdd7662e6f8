"""Beside another engine: a client that keeps its connections, and a table that has both sides."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiki.testing.servers.ports import LOOPBACK
from bench.beside.http import HttpClient, HttpError
from bench.beside.restate import find_restate_server
from bench.beside.table import beside_table


class AddingServer:
    """Answers each request with the path and one more than its body, once as many are under way as it waits for."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.together = asyncio.Barrier(1)
        self.head = "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nvary: content-length\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := (await self._head(reader)):
            path = head.split()[1].decode()
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
            await self.together.wait()
            answer = f"{path} {int(body) + 1}".encode()
            writer.write(self.head.format(length=len(answer)).encode() + answer)
        writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""


@pytest.fixture
async def server() -> AsyncIterator[AddingServer]:
    adding = AddingServer()
    listening = await asyncio.start_server(adding.serve, LOOPBACK, 0)
    adding.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield adding


async def test_requests_that_follow_each_other_share_a_connection(server: AddingServer) -> None:
    async with HttpClient(server.port) as client:
        answers = [await client.post("/add", b"%d" % number) for number in range(5)]

    assert answers == [f"/add {number + 1}".encode() for number in range(5)]
    assert server.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each(server: AddingServer) -> None:
    server.together = asyncio.Barrier(20)

    async with HttpClient(server.port) as client:
        answers = await asyncio.gather(*(client.post("/add", b"%d" % number) for number in range(20)))

    assert answers == [f"/add {number + 1}".encode() for number in range(20)]
    assert server.connections == 20


async def test_an_answer_that_is_no_success_is_an_error_that_shows_it(server: AddingServer) -> None:
    server.head = "HTTP/1.1 404 Not Found\r\ncontent-length: {length}\r\n\r\n"

    async with HttpClient(server.port) as client:
        with pytest.raises(HttpError, match=r"(?s)^/missing was answered with HTTP/1.1 404 Not Found.*/missing 2$"):
            await client.post("/missing", b"1")


async def test_an_answer_of_unknown_length_is_an_error(server: AddingServer) -> None:
    server.head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    async with HttpClient(server.port) as client:
        with pytest.raises(HttpError, match="chunked"):
            await client.post("/add", b"1")


def test_a_table_has_both_sides_and_the_ratios_of_their_rounds() -> None:
    pairs = [
        ({"p50 ms": 10.0, "worker": 1.0}, {"p50 ms": 20.0, "service": 3.0}),
        ({"p50 ms": 12.0, "worker": 1.0}, {"p50 ms": 30.0, "service": 3.0}),
        ({"p50 ms": 11.0, "worker": 1.0}, {"p50 ms": 10.0, "service": 3.0}),
    ]

    lines = [" ".join(line.split()) for line in beside_table("latency", ("Ours", "Theirs"), pairs).splitlines()]

    assert lines == [
        "",
        "latency Ours Theirs Ours / Theirs",
        "p50 ms 11.0 [10.0 – 12.0] 20.0 [10.0 – 30.0] 0.50 [0.40 – 1.10]",
        "worker 1.00 [1.00 – 1.00]",
        "service 3.00 [3.00 – 3.00]",
    ]


def test_the_server_is_found_where_npm_puts_it(tmp_path: Path) -> None:
    program = tmp_path / "node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"
    program.parent.mkdir(parents=True)
    program.touch()

    assert find_restate_server(tmp_path) == program


def test_without_node_modules_the_server_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "restate-server"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_restate_server(tmp_path / "elsewhere") == program


def test_a_server_that_is_nowhere_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_restate_server(tmp_path) is None
