"""The rows: each measures one thing once, on a system that is up and warm."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

from aiki import Client
from bench.figures import Figures, percentile
from bench.system import System
from bench.workflows import counting, fan_out, long_count, napping, three_steps

__all__ = ["ROWS", "Scale", "warm_up"]

IN_FLIGHT = 200
SLEEP_SECONDS = 10.0
STEPS_BEFORE_KILL = 8
STEPS_OF_A_KILLED_RUN = 40


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


async def warm_up(client: Client) -> None:
    """Let queues be declared, imports done and caches filled."""
    await asyncio.gather(*(_run_three(client, number) for number in range(IN_FLIGHT)))


async def throughput(system: System, client: Client, scale: Scale) -> Figures:
    """W1: three steps in sequence, 200 runs in flight."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        async with slots:
            await _run_three(client, number)

    cpu, operations, began = system.cpu(), system.operations(), time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(scale.runs)))
    seconds = time.perf_counter() - began
    taken, done = _difference(system.cpu(), cpu), _difference(system.operations(), operations)
    return {
        "runs/s": scale.runs / seconds,
        "CPU s per 1,000 runs": sum(taken.values()) / scale.runs * 1000,
        **{f"  of it {name}": value / scale.runs * 1000 for name, value in taken.items()},
        **{f"MongoDB {kind}s per run": value / scale.runs for kind, value in done.items()},
    }


async def latency(_system: System, client: Client, scale: Scale) -> Figures:
    """W1, one run at a time: from the call of enqueue to the result."""
    return _milliseconds(await _timed(lambda number: _run_three(client, number), scale.one_at_a_time))


async def parallel(_system: System, client: Client, scale: Scale) -> Figures:
    """W2: one run of 100 parallel steps at a time."""

    async def one(number: int) -> None:
        handle = await fan_out.enqueue(client, 100)
        await handle.wait_for_completion(timeout=60)

    return _milliseconds(await _timed(one, scale.fan_outs))


async def sleepers(system: System, client: Client, scale: Scale) -> Figures:
    """W3: many runs asleep at once; how late the task behind the sleep begins."""
    before = system.memory()
    handles = await napping.enqueue_many(client, [SLEEP_SECONDS] * scale.sleepers)
    await asyncio.sleep(SLEEP_SECONDS * 0.7)
    asleep = system.memory()
    late = [await handle.wait_for_completion(timeout=300) for handle in handles]
    return {
        "sleepers": scale.sleepers,
        "late p50 ms": percentile(late, 0.5) * 1000,
        "late p99 ms": percentile(late, 0.99) * 1000,
        "more memory MiB": asleep - before,
    }


async def enqueueing(_system: System, client: Client, scale: Scale) -> Figures:
    """Enqueue in bulk; what is enqueued is executed meanwhile and has to be over before the next round."""
    began = time.perf_counter()
    handles = await three_steps.enqueue_many(client, range(scale.requests))
    seconds = time.perf_counter() - began
    for handle in handles:
        await handle.wait_for_completion(timeout=600)
    return {
        "accepted runs/s": scale.requests / seconds,
        "backlog worked off, runs/s": scale.requests / (time.perf_counter() - began),
    }


async def recovery(system: System, client: Client, scale: Scale) -> Figures:
    """Kill the worker that holds a run; the gap ends when the next step of the run begins elsewhere."""
    names = {system.services[name].pid: name for name in ("worker",)}
    spare = system.worker("spare")
    spare.wait_until_ready()
    names[spare.pid] = "spare"
    gaps: list[float] = []
    for _ in range(scale.kills):
        system.marks.clear()
        handle = await counting.enqueue(client, STEPS_OF_A_KILLED_RUN)
        holder = await _holder_after(system, STEPS_BEFORE_KILL)
        name = names.pop(holder)
        killed_at = system.services[name].kill()
        await handle.wait_for_completion(timeout=60)
        gaps.append(min(mark.at for mark in system.marks.read() if mark.pid != holder) - killed_at)
        successor = system.worker(name)
        await asyncio.to_thread(successor.wait_until_ready)
        names[successor.pid] = name
    system.services.pop("spare").stop()
    return {"kills": len(gaps), **_milliseconds(gaps)}


async def long_history(_system: System, client: Client, scale: Scale) -> Figures:
    """One long run: whether a step costs the same at its end as at its beginning."""
    handle = await long_count.enqueue(client, scale.steps)
    await handle.wait_for_completion(timeout=600)
    stamps = [entry.at.timestamp() * 1000 for entry in await handle.journal()]
    part = scale.steps // 10
    first = (stamps[part] - stamps[0]) / part
    last = (stamps[-1] - stamps[-1 - part]) / part
    return {"steps": len(stamps), "ms per step, first tenth": first, "ms per step, last tenth": last}


async def idle(system: System, _client: Client, _scale: Scale) -> Figures:
    """Nothing to do: what the services take of a core."""
    seconds = 10.0
    cpu, operations = system.cpu(), system.operations()
    await asyncio.sleep(seconds)
    taken, done = _difference(system.cpu(), cpu), _difference(system.operations(), operations)
    return {
        **{f"% of a core, {name}": value / seconds * 100 for name, value in taken.items() if name != "client"},
        "MongoDB operations/s": sum(done.values()) / seconds,
    }


Row = Callable[[System, Client, Scale], Awaitable[Figures]]

ROWS: Mapping[str, Row] = {
    "throughput": throughput,
    "latency": latency,
    "parallel": parallel,
    "sleepers": sleepers,
    "enqueue": enqueueing,
    "history": long_history,
    "idle": idle,
    "recovery": recovery,
}


async def _run_three(client: Client, number: int) -> None:
    handle = await three_steps.enqueue(client, number)
    assert await handle.wait_for_completion(timeout=120) == number + 3


async def _timed(work: Callable[[int], Awaitable[None]], times: int) -> list[float]:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        await work(number)
        taken.append(time.perf_counter() - began)
    return taken


async def _holder_after(system: System, steps: int) -> int:
    while len(marks := system.marks.read()) < steps:  # noqa: ASYNC110 - the marks are a file that another process writes
        await asyncio.sleep(0.002)
    return marks[-1].pid


def _milliseconds(seconds: list[float]) -> Figures:
    return {
        "p50 ms": median(seconds) * 1000,
        "p99 ms": percentile(seconds, 0.99) * 1000,
        "worst ms": max(seconds) * 1000,
    }


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> Mapping[str, float]:
    return {name: after[name] - before[name] for name in after if name in before}
