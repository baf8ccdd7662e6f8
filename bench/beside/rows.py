"""The rows: each does the same on one side, once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiki.cli.measuring import in_flight, one_at_a_time
from bench.beside.sides import Side
from bench.figures import Figures
from bench.load import IN_FLIGHT, Scale, difference, milliseconds

__all__ = ["ROWS", "warm_up"]

SECONDS_AT_REST = 5.0
WARM_UP = 3 * IN_FLIGHT


async def warm_up(side: Side) -> None:
    """Let connections be open, caches filled, and code compiled where something compiles it."""
    await in_flight(side.three_steps, times=WARM_UP, at_once=IN_FLIGHT)
    await in_flight(side.fan_out, times=10, at_once=1)


async def throughput(side: Side, scale: Scale) -> Figures:
    """W1, 200 in flight."""
    before = side.cpu()
    measured = await in_flight(side.three_steps, times=scale.runs, at_once=IN_FLIGHT)
    taken = difference(side.cpu(), before)
    return {
        "runs/s": measured.per_second,
        "CPU s per 1,000 runs": sum(taken.values()) / scale.runs * 1000,
        **{f"  of it {name}": value / scale.runs * 1000 for name, value in taken.items()},
    }


async def latency(side: Side, scale: Scale) -> Figures:
    """W1, one at a time: from the question to the result."""
    before = side.cpu()
    measured = await one_at_a_time(side.three_steps, times=scale.one_at_a_time)
    taken = difference(side.cpu(), before)
    return {**milliseconds(measured.taken), "CPU ms per run": sum(taken.values()) / scale.one_at_a_time * 1000}


async def parallel(side: Side, scale: Scale) -> Figures:
    """W2, one at a time."""
    return milliseconds((await one_at_a_time(side.fan_out, times=scale.fan_outs)).taken)


async def idle(side: Side, _scale: Scale) -> Figures:
    """Nothing to do: what it takes of a core, and so from the other one while that is measured."""
    before = side.cpu()
    await asyncio.sleep(SECONDS_AT_REST)
    taken = difference(side.cpu(), before)
    return {"% of a core": sum(value for name, value in taken.items() if name != "client") / SECONDS_AT_REST * 100}


ROWS: Mapping[str, Callable[[Side, Scale], Awaitable[Figures]]] = {
    "throughput": throughput,
    "latency": latency,
    "parallel": parallel,
    "idle": idle,
}
