"""The rows: each measures one thing once, on a system that is up and warm."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiki import Client
from aiki.cli.measuring import percentile
from bench.figures import Figures
from bench.growth import stored, two_of_each
from bench.load import FAN_OUT, IN_FLIGHT, Scale, difference, enqueued, latency_of, milliseconds, throughput_of
from bench.system import System
from bench.workflows import counting, fan_out, long_count, napping, run_three, three_steps

__all__ = ["ROWS", "warm_up"]

SLEEP_SECONDS = 10.0
STEPS_BEFORE_KILL = 8
STEPS_OF_A_KILLED_RUN = 40


async def warm_up(client: Client) -> None:
    """Let queues be declared, imports done and caches filled."""
    await asyncio.gather(*(run_three(client, number) for number in range(IN_FLIGHT)))


async def throughput(system: System, client: Client, scale: Scale) -> Figures:
    """W1: three steps in sequence, 200 runs in flight."""
    return await throughput_of(system, lambda number: run_three(client, number), scale)


async def latency(_system: System, client: Client, scale: Scale) -> Figures:
    """W1, one run at a time: from the call of enqueue to the result."""
    return await latency_of(lambda number: run_three(client, number), scale.one_at_a_time)


async def parallel(_system: System, client: Client, scale: Scale) -> Figures:
    """W2: one run of 100 parallel steps at a time."""

    async def one(number: int) -> None:
        handle = await fan_out.enqueue(client, FAN_OUT)
        await handle.wait_for_completion(timeout=60)

    return await latency_of(one, scale.fan_outs)


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
    return await enqueued(
        three_steps.enqueue_many(client, range(scale.requests)),
        lambda handle: handle.wait_for_completion(timeout=600),
        scale,
    )


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
    return {"kills": len(gaps), **milliseconds(gaps)}


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
    taken, done = difference(system.cpu(), cpu), system.operations() - operations
    return {
        **{f"% of a core, {name}": value / seconds * 100 for name, value in taken.items() if name != "client"},
        "MongoDB operations/s": done / seconds,
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
    "two": two_of_each,
    "stored": stored,
}


async def _holder_after(system: System, steps: int) -> int:
    while len(marks := system.marks.read()) < steps:  # noqa: ASYNC110 - the marks are a file that another process writes
        await asyncio.sleep(0.002)
    return marks[-1].pid
