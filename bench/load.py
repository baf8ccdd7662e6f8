"""What rows have in common: how much is done in a round, and what is made of it."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from aiki.cli.measuring import in_flight, one_at_a_time, percentile
from bench.figures import Figures
from bench.system import System

__all__ = ["FAN_OUT", "IN_FLIGHT", "Scale", "difference", "enqueued", "latency_of", "milliseconds", "throughput_of"]

T = TypeVar("T")

IN_FLIGHT = 200
FAN_OUT = 100


class Scale:
    """How much is done in a round: 1.0 is what the documentation's numbers come from."""

    def __init__(self, factor: float) -> None:
        self.runs = max(int(3000 * factor), IN_FLIGHT)
        self.one_at_a_time = max(int(300 * factor), 20)
        self.fan_outs = max(int(30 * factor), 5)
        self.sleepers = max(int(5000 * factor), 100)
        self.requests = max(int(20_000 * factor), 1000)
        self.kills = max(int(15 * factor), 3)
        self.steps = max(int(5000 * factor), 500)
        self.stored = max(int(1_000_000 * factor), 10_000)


async def throughput_of(system: System, one: Callable[[int], Awaitable[object]], scale: Scale) -> Figures:
    """Do *one* many times, 200 in flight, and count what it took."""
    traffic = system.traffic()
    cpu = system.cpu()
    measured = await in_flight(one, times=scale.runs, at_once=IN_FLIGHT)
    taken = difference(system.cpu(), cpu)
    done = difference(system.traffic(), traffic)
    memory = system.memory_by_process()
    return {
        "runs/s": measured.per_second,
        "CPU s per 1,000 runs": sum(taken.values()) / scale.runs * 1000,
        **{f"  of it {name}": value / scale.runs * 1000 for name, value in taken.items()},
        **{f"{name} per run": value / scale.runs for name, value in done.items()},
        **{f"MiB of {name}": memory[name] for name in taken},
    }


async def latency_of(system: System, one: Callable[[int], Awaitable[object]], times: int) -> Figures:
    """Do *one* so many *times*, one after the other, and count what is said to the servers."""
    traffic = system.traffic()
    measured = await one_at_a_time(one, times=times)
    done = difference(system.traffic(), traffic)
    return {**milliseconds(measured.taken), **{f"{name} per run": value / times for name, value in done.items()}}


async def enqueued(asking: Awaitable[Sequence[T]], wait: Callable[[T], Awaitable[object]], scale: Scale) -> Figures:
    """Time *asking*; what was asked for is executed meanwhile and has to be over before the next round."""
    began = time.perf_counter()
    asked = await asking
    seconds = time.perf_counter() - began
    for one in asked:
        await wait(one)
    return {
        "accepted runs/s": scale.requests / seconds,
        "backlog worked off, runs/s": scale.requests / (time.perf_counter() - began),
    }


def milliseconds(seconds: Sequence[float]) -> Figures:
    """Sum up durations."""
    return {
        "p50 ms": median(seconds) * 1000,
        "p99 ms": percentile(seconds, 0.99) * 1000,
        "worst ms": max(seconds) * 1000,
    }


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> Mapping[str, float]:
    """Tell by how much each grew that was there before."""
    return {name: after[name] - before[name] for name in after if name in before}
