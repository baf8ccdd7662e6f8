"""The rows: each measures one thing once, on a system that is up and warm."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiki import Client, Handle
from aiki.cli.measuring import percentile
from bench.figures import Figures
from bench.growth import stored, two_of_each
from bench.load import FAN_OUT, IN_FLIGHT, Scale, difference, enqueued, latency_of, milliseconds, throughput_of
from bench.system import System
from bench.workflows import counting, fan_out, long_count, napping, run_three, three_steps

__all__ = ["ROWS", "Row", "warm_up"]

SLEEP_SECONDS = 10.0
# Those that fall asleep one after the other do so within this time: then all of them are asleep at once.
ARRIVAL_SECONDS = 8.0
ARRIVALS_PER_SECOND = 50
IDLE_SECONDS = 10.0
# Whoever polls does so with one of these; ``hello`` is the heartbeat of the drivers.
IDLE_COMMANDS = ("find", "getMore", "aggregate", "count", "insert", "update", "delete", "hello")
STEPS_BEFORE_KILL = 8
STEPS_OF_A_KILLED_RUN = 40


async def warm_up(client: Client) -> None:
    """Let queues be declared, imports done and caches filled."""
    await asyncio.gather(*(run_three(client, number) for number in range(IN_FLIGHT)))


async def throughput(system: System, client: Client, scale: Scale) -> Figures:
    """W1: three steps in sequence, 200 runs in flight."""
    return await throughput_of(system, lambda number: run_three(client, number), scale)


async def latency(system: System, client: Client, scale: Scale) -> Figures:
    """W1, one run at a time: from the call of enqueue to the result."""
    return await latency_of(system, lambda number: run_three(client, number), scale.one_at_a_time)


async def parallel(system: System, client: Client, scale: Scale) -> Figures:
    """W2: one run of 100 parallel steps at a time."""

    async def one(number: int) -> None:
        handle = await fan_out.enqueue(client, FAN_OUT)
        await handle.wait_for_completion(timeout=60)

    return await latency_of(system, one, scale.fan_outs)


async def sleepers(system: System, client: Client, scale: Scale) -> Figures:
    """W3: many runs asleep at once, having come one after the other; how late the task behind the sleep begins."""
    before = await _memory_at_the_start(system, client)
    loop = asyncio.get_running_loop()
    began = loop.time()
    handles: list[Handle[float]] = []
    for number in range(bursts := int(ARRIVAL_SECONDS * ARRIVALS_PER_SECOND)):
        await asyncio.sleep(began + number / ARRIVALS_PER_SECOND - loop.time())
        share = scale.sleepers * (number + 1) // bursts - len(handles)
        handles += await napping.enqueue_many(client, [SLEEP_SECONDS] * share)
    return await _woken(system, handles, asleep_at=began + (ARRIVAL_SECONDS + SLEEP_SECONDS) / 2, before=before)


async def sleepers_at_once(system: System, client: Client, scale: Scale) -> Figures:
    """W3 with all runs asked for in one go: they fall asleep as fast as they can be started, and all wake as fast."""
    before = await _memory_at_the_start(system, client)
    asleep_at = asyncio.get_running_loop().time() + SLEEP_SECONDS * 0.7
    handles = await napping.enqueue_many(client, [SLEEP_SECONDS] * scale.sleepers)
    return await _woken(system, handles, asleep_at=asleep_at, before=before)


async def _memory_at_the_start(system: System, client: Client) -> float:
    """Start the services afresh, have each imports done, and tell their MiB."""
    await asyncio.to_thread(system.start_afresh)
    await (await napping.enqueue(client, 0.0)).wait_for_completion(timeout=60)
    return system.memory()


async def _woken(system: System, handles: Sequence[Handle[float]], *, asleep_at: float, before: float) -> Figures:
    await asyncio.sleep(asleep_at - asyncio.get_running_loop().time())
    asleep = system.memory()
    late = [await handle.wait_for_completion(timeout=300) for handle in handles]
    return {
        "sleepers": len(late),
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
    """Nothing to do: what the services take of a core, and what they say to the servers."""
    commands, traffic, cpu = system.commands(), system.traffic(), system.cpu()
    await asyncio.sleep(IDLE_SECONDS)
    taken = difference(system.cpu(), cpu)
    said = difference(system.traffic(), traffic)
    asked = difference(system.commands(), commands)
    return {
        **{f"% of a core, {name}": value / IDLE_SECONDS * 100 for name, value in taken.items() if name != "client"},
        **{f"{name}/s": said[name] / IDLE_SECONDS for name in ("RabbitMQ messages in", "RabbitMQ messages out")},
        "MongoDB commands/s": sum(asked.values()) / IDLE_SECONDS,
        **{f"  of it {name}": asked[name] / IDLE_SECONDS for name in IDLE_COMMANDS},
    }


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, and the queue that the worker serves meanwhile, as its command line says."""

    measure: Callable[[System, Client, Scale], Awaitable[Figures]]
    queue: str | None = three_steps.queue
    """``None``: those of all workflows."""


ROWS: Mapping[str, Row] = {
    "throughput": Row(throughput),
    "latency": Row(latency),
    "enqueue": Row(enqueueing),
    "idle": Row(idle),
    "two": Row(two_of_each),
    "stored": Row(stored),
    "queues": Row(throughput, queue=None),
    "parallel": Row(parallel, queue=fan_out.queue),
    "sleepers": Row(sleepers, queue=napping.queue),
    "sleepers-at-once": Row(sleepers_at_once, queue=napping.queue),
    "history": Row(long_history, queue=long_count.queue),
    "recovery": Row(recovery, queue=counting.queue),
}


async def _holder_after(system: System, steps: int) -> int:
    while len(marks := system.marks.read()) < steps:  # noqa: ASYNC110 - the marks are a file that another process writes
        await asyncio.sleep(0.002)
    return marks[-1].pid
