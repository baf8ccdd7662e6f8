"""A chaos run: a cluster under load, faults from a seed, and at the end peace, in which everything has to finish."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from aiki.testing.chaos.checker import Violation, check
from aiki.testing.chaos.client import FINISHED
from aiki.testing.chaos.cluster import Cluster, Size
from aiki.testing.chaos.faults import KINDS, Fault, draw_faults, lock_of
from aiki.testing.chaos.history import History, Recorder, keep_writes, load_history
from aiki.testing.chaos.logs import read_logs
from aiki.testing.chaos.report import Report, report_of
from aiki.testing.chaos.stored import Watch, read_store, unfinished
from broker_topology import CONTROL, NOTICES

__all__ = ["Chaos", "Plan", "run_chaos"]

PROGRESS_SECONDS = 60.0
PEACE_SECONDS = 120.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chaos run is to be. It ends when there were enough of both, or when the time is over."""

    seed: int
    faults: int = 50
    runs: int = 5000
    seconds: float = 170.0
    """How long faults are made at most; starting and finishing come on top."""
    kinds: Sequence[str] = tuple(KINDS)
    every: float = 2.0
    """Seconds between the beginnings of two faults, on average."""
    at_once: int = 3
    """No more faults at the same time: the machine has to get something done as well. With one, the pause between
    two begins when the first is healed and has no effect any more."""
    size: Size = field(default_factory=Size)


@dataclass(frozen=True, slots=True)
class Chaos:
    """What came of a chaos run."""

    report: Report
    violations: Sequence[Violation]
    history: History


async def run_chaos(plan: Plan, folder: Path, *, say: Callable[[str], None]) -> Chaos:
    """Do what *plan* says, in *folder*. No process is left, however this ends.

    Raises:
        ServerError: a server does not do what it is told, which is not the fault of anything tested here.
    """
    async with Cluster.running(folder, plan.size) as cluster:
        watch = Watch(cluster.replicas.url)
        await asyncio.to_thread(watch.start)
        say(f"seed {plan.seed}: {len(cluster.services)} processes on {plan.size.brokers} brokers, in {folder}")
        await cluster.start_clients()
        await _Director(cluster, plan, say).direct()
        left_over = await _make_peace(cluster, say)
        await asyncio.to_thread(watch.stop)
        history = await asyncio.to_thread(load_history, cluster.history)
        history.writes = watch.writes
        history.left_over += left_over
        logs = {name: service.log for name, service in cluster.services.items()}
        history.said = await asyncio.to_thread(read_logs, logs)
        await asyncio.to_thread(read_store, cluster.replicas.url, history)
        violations = check(history)
        keep_writes(cluster.history, history.writes)
    return Chaos(report_of(history, violations, seed=str(plan.seed)), violations, history)


class _Director:
    """Makes faults, one after the other and beside each other, and sees to it that progress comes back."""

    def __init__(self, cluster: Cluster, plan: Plan, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._say = say
        self._recorder = Recorder(cluster.history / "faults.jsonl")
        self._free = asyncio.Semaphore(plan.at_once)
        self._began = time.monotonic()

    async def direct(self) -> None:
        """Make faults until there are enough; returns when all are healed."""
        faults = draw_faults(Random(self._plan.seed), kinds=self._plan.kinds, every=self._plan.every)
        async with asyncio.TaskGroup() as group:
            for number in count():
                await self._free.acquire()
                await asyncio.sleep(faults[0].pause)
                if self._is_enough(number):
                    break
                fault = next((fault for fault in faults if not lock_of(self._cluster, fault).locked()), faults[0])
                faults.remove(fault)
                group.create_task(self._strike(fault))

    def _is_enough(self, faults: int) -> bool:
        if time.monotonic() - self._began > self._plan.seconds:
            return True
        return faults >= self._plan.faults and self._runs() >= self._plan.runs

    async def _strike(self, fault: Fault) -> None:
        try:
            async with lock_of(self._cluster, fault):
                began = time.time()
                target = await KINDS[fault.kind].strike(self._cluster, fault)
            healed = time.time()
            stuck = not await self._goes_on()
        finally:
            self._free.release()
        self._recorder.write("struck", kind=fault.kind, began=began, healed=healed, target=target, stuck=stuck)
        self._say(
            f"{began - time.time() + time.monotonic() - self._began:7.1f} {fault.kind} of {target}, "
            f"{healed - began:.1f} s{': NO PROGRESS' if stuck else ''}"
        )

    async def _goes_on(self) -> bool:
        """Wait until workers achieve something again; tell whether they do."""
        before = self._bytes_of_history()
        return await _until(lambda: self._bytes_of_history() > before, PROGRESS_SECONDS)

    def _bytes_of_history(self) -> int:
        return sum(path.stat().st_size for path in self._cluster.history.glob("process-*.jsonl"))

    def _runs(self) -> int:
        files = self._cluster.history.glob("client-*.jsonl")
        return sum(path.read_bytes().count(b'"what":"accepted"') for path in files)


async def _make_peace(cluster: Cluster, say: Callable[[str], None]) -> list[str]:
    """Let everything that was begun come to its end; tell what does not."""
    left_over = [
        f"{service.name} ended by itself: {service.log.read_text(errors='replace')[-1000:]}"
        for service in cluster.services.values()
        if not service.is_running
    ]
    clients = cluster.of_kind("client")
    stopping = [asyncio.to_thread(client.stop) for client in clients]
    say("no more faults; everything finishes")
    await asyncio.gather(*stopping)
    left_over += [
        f"{client.name} did not finish: {client.log.read_text()[-1000:]}"
        for client in clients
        if FINISHED not in client.log.read_text()
    ]
    url = cluster.replicas.url
    if not await _until_nothing(lambda: unfinished(url), PEACE_SECONDS):
        left_over += [f"run {each}" for each in await asyncio.to_thread(unfinished, url)]
    if not await _until_nothing(lambda: _waiting(cluster), PEACE_SECONDS):
        left_over += await asyncio.to_thread(_waiting, cluster)
    return left_over


def _waiting(cluster: Cluster) -> list[str]:
    """Name the queues that are not empty, and those of processes that are gone."""
    columns = ("name", "messages", "consumers")
    queues = json.loads(cluster.brokers[0].ctl("list_queues", *columns, "--formatter", "json", "--silent"))
    waiting = [f"queue {queue['name']} holds {queue['messages']}" for queue in queues if queue["messages"]]
    private = [queue for queue in queues if queue["name"].startswith((f"{CONTROL}.", f"{NOTICES}."))]
    return waiting + [f"queue {queue['name']} belongs to nobody" for queue in private if not queue["consumers"]]


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until *condition* holds; tell whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


async def _until_nothing(find: Callable[[], Sequence[str]], seconds: float) -> bool:
    """Look again and again, in a thread, until nothing is found; tell whether that was in time."""
    deadline = time.monotonic() + seconds
    while await asyncio.to_thread(find):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
