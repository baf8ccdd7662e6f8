"""The rows: each does the same on one side, once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiki.cli.measuring import in_flight, one_at_a_time
from bench.beside.sides import Side
from bench.figures import Figures
from bench.load import IN_FLIGHT, Scale, difference, milliseconds
from bench.workflows import fan_out, three_steps

__all__ = ["ROWS", "Row"]

SECONDS_AT_REST = 5.0


async def warm_up(side: Side) -> None:
    """Let connections be open, caches filled, and code compiled where something compiles it."""
    await in_flight(side.three_steps, times=3 * IN_FLIGHT, at_once=IN_FLIGHT)


async def warm_up_wide(side: Side) -> None:
    """Do the same with wide runs."""
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


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured of a side, what is done before, and the queue that Aiki's worker serves meanwhile."""

    measure: Callable[[Side, Scale], Awaitable[Figures]]
    warm_up: Callable[[Side], Awaitable[None]] = warm_up
    queue: str = three_steps.queue


ROWS: Mapping[str, Row] = {
    "throughput": Row(throughput),
    "latency": Row(latency),
    "parallel": Row(parallel, warm_up_wide, fan_out.queue),
    "idle": Row(idle),
}
