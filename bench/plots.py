"""`python -m bench.plots FOLDER`: the pictures of docs/performance.md: speed over time, latencies, cost of a step."""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiki import Client
from aiki.cli.measuring import Measured, in_flight, one_at_a_time
from bench.load import IN_FLIGHT, Scale
from bench.rows import warm_up
from bench.system import System, servers
from bench.workflows import long_count, run_three

__all__ = ["cost_by_step", "main", "per_second"]

BUCKET_SECONDS = 0.25
STEPS_PER_POINT = 50
SIZE_INCHES = (6.4, 3.2)


def main() -> None:
    """Measure, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description="Measure, and draw what was measured.")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is done (%(default)s)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="aiki-plots-") as name,
        servers(Path(name)) as (rabbit, mongo),
        System(rabbit, mongo, Path(name)) as system,
    ):
        for service in (system.orchestrator(), system.worker()):
            service.wait_until_ready()
        loaded, alone, stamps = asyncio.run(_measure(system, Scale(options.scale)))
    speed = per_second(loaded)
    draw(
        options.folder / "throughput.svg",
        [number * BUCKET_SECONDS for number in range(len(speed))],
        speed,
        x="seconds",
        y="runs ended per second, 200 in flight",
    )
    draw_histogram(options.folder / "latency.svg", [taken * 1000 for taken in alone.taken], x="ms, one run at a time")
    costs = cost_by_step(stamps)
    draw(
        options.folder / "history.svg",
        [STEPS_PER_POINT * (number + 1) for number in range(len(costs))],
        costs,
        x="step of one run",
        y="ms per step",
    )


async def _measure(system: System, scale: Scale) -> tuple[Measured, Measured, list[float]]:
    async with Client.connect(system.rabbit.url) as client:
        await warm_up(client)

        async def one(number: int) -> None:
            await run_three(client, number)

        loaded = await in_flight(one, times=scale.runs * 3, at_once=IN_FLIGHT)
        alone = await one_at_a_time(one, times=scale.one_at_a_time)
        handle = await long_count.enqueue(client, scale.steps)
        await handle.wait_for_completion(timeout=600)
        return loaded, alone, [entry.at.timestamp() * 1000 for entry in await handle.journal()]


def per_second(measured: Measured) -> list[float]:
    """Tell how many ended, per second, in each part of the time; the last part, which is cut short, is left out."""
    buckets = [0] * int(measured.seconds / BUCKET_SECONDS)
    for ended in measured.ended:
        number = int(ended / BUCKET_SECONDS)
        if number < len(buckets):
            buckets[number] += 1
    return [count / BUCKET_SECONDS for count in buckets]


def cost_by_step(stamps: Sequence[float]) -> list[float]:
    """Tell what a step took along a run, averaged over some at a time."""
    ends = range(STEPS_PER_POINT, len(stamps), STEPS_PER_POINT)
    return [(stamps[end] - stamps[end - STEPS_PER_POINT]) / STEPS_PER_POINT for end in ends]


def draw(file: Path, xs: Sequence[float], ys: Sequence[float], *, x: str, y: str) -> None:
    """Draw a line, from zero on: what looks like a change is one."""
    from matplotlib.figure import Figure  # Only who wants a picture needs it.

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.plot(xs, ys, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None})


def draw_histogram(file: Path, values: Sequence[float], *, x: str) -> None:
    """Draw how many values are how large."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel="runs")
    axes.hist(list(values), bins=40)
    axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
