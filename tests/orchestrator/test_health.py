"""The health endpoint: a page for probes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from aiki.errors import ConfigurationError
from aiki.orchestrator.health import HealthEndpoint

state: dict[str, Any] = {}


@pytest.fixture
async def endpoint() -> AsyncIterator[HealthEndpoint]:
    state.clear()
    state["ready"] = True
    endpoint = HealthEndpoint("127.0.0.1", 0, report=lambda: state)
    await endpoint.start()
    yield endpoint
    await endpoint.close()


async def ask(port: int, request: bytes) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body) if body else None


async def test_a_turning_loop_is_live(endpoint: HealthEndpoint) -> None:
    assert await ask(endpoint.port, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n") == (200, {"live": True})


async def test_readiness_is_what_the_report_says(endpoint: HealthEndpoint) -> None:
    state.update(partitions=[1, 2])
    assert await ask(endpoint.port, b"GET /ready?now HTTP/1.1\r\n\r\n") == (200, {"ready": True, "partitions": [1, 2]})

    state["ready"] = False

    status, _ = await ask(endpoint.port, b"GET /ready HTTP/1.1\r\n\r\n")
    assert status == 503


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b"GET /secrets HTTP/1.1", 404), (b"POST /live HTTP/1.1", 405), (b"nonsense", 405)],
)
async def test_other_requests_are_refused(endpoint: HealthEndpoint, request_line: bytes, status: int) -> None:
    answered, _ = await ask(endpoint.port, request_line + b"\r\n\r\n")

    assert answered == status


async def test_a_head_request_gets_no_body(endpoint: HealthEndpoint) -> None:
    assert await ask(endpoint.port, b"HEAD /live HTTP/1.1\r\n\r\n") == (200, None)


async def test_an_endless_request_is_cut_off_and_the_next_one_answered(endpoint: HealthEndpoint) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(b"x" * 100_000)
    with suppress(ConnectionResetError):  # The other way of being cut off.
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()

    assert (await ask(endpoint.port, b"GET /live HTTP/1.1\r\n\r\n"))[0] == 200


async def test_an_address_that_is_taken_is_said_so(endpoint: HealthEndpoint) -> None:
    second = HealthEndpoint("127.0.0.1", endpoint.port, report=lambda: state)

    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{endpoint.port}"):
        await second.start()
