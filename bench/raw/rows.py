"""The rows of the limit. Each has the name of the row of Aiki's that it is the limit of."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from bench.figures import Figures
from bench.load import FAN_OUT, IN_FLIGHT, Scale, enqueued, latency_of, throughput_of
from bench.raw.client import RawClient
from bench.raw.parts import parts
from bench.raw.processes import AMQP_URL, MONGODB_URL
from bench.system import System

__all__ = ["RAW_ROWS", "warm_up_raw"]

STEPS = 3


async def warm_up_raw(client: RawClient) -> None:
    """Let connections and caches be what they are under load."""
    await asyncio.gather(*(_run(client, STEPS) for _ in range(IN_FLIGHT)))


async def throughput(system: System, client: RawClient, scale: Scale) -> Figures:
    """W1, 200 in flight."""
    return await throughput_of(system, lambda _: _run(client, STEPS), scale)


async def latency(system: System, client: RawClient, scale: Scale) -> Figures:
    """W1, one at a time."""
    return await latency_of(system, lambda _: _run(client, STEPS), scale.one_at_a_time)


async def parallel(system: System, client: RawClient, scale: Scale) -> Figures:
    """W2: a run of parallel steps, one at a time."""
    return await latency_of(system, lambda _: _run(client, -FAN_OUT), scale.fan_outs)


async def enqueue(_system: System, client: RawClient, scale: Scale) -> Figures:
    """Ask for many runs in one go."""

    async def ask() -> list[asyncio.Future[None]]:
        return await asyncio.gather(*(client.enqueue(STEPS) for _ in range(scale.requests)))

    async def wait(ended: "asyncio.Future[None]") -> None:
        await ended

    return await enqueued(ask(), wait, scale)


async def each_part(system: System, _client: RawClient, scale: Scale) -> Figures:
    """Each part of the way by itself."""
    urls = system.environment
    return await parts(urls[AMQP_URL], urls[MONGODB_URL], times=scale.one_at_a_time)


async def _run(client: RawClient, steps: int) -> None:
    await (await client.enqueue(steps))


RAW_ROWS: Mapping[str, Callable[[System, RawClient, Scale], Awaitable[Figures]]] = {
    "throughput": throughput,
    "latency": latency,
    "parallel": parallel,
    "enqueue": enqueue,
    "parts": each_part,
}
