"""A client under steady load, as a process of its own: it starts runs, talks to them and waits for their ends.

Everything that it asks and hears is written to its history first. So it may be killed at any
moment: its next life reads what the one before had begun, and goes on with that.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from aiki.bootstrap import Client
from aiki.engine.ids import run_id_for_key
from aiki.engine.status import RunStatus
from aiki.errors import (
    AcceptanceTimeoutError,
    AikiError,
    BatchNotEnqueuedError,
    CompletionTimeoutError,
    EnqueueTimeoutError,
    RunCancelledError,
    RunDeadLetteredError,
    RunEndedError,
    RunFailedError,
    RunNotFoundError,
)
from aiki.sdk.handle import Handle
from aiki.sdk.workflow import Workflow
from aiki.testing.chaos.history import HISTORY_VARIABLE, Recorder, read_lines
from aiki.testing.chaos.workload import BURST, BURST_STEPS, SIGNAL, Job, chaos_chain, job_of

__all__ = ["FINISHED", "JOBS_EACH", "STARTED", "WIPED", "main"]

STARTED = "client.started"
FINISHED = "client.finished"
WIPED = "wiped"
"""A file in the folder of the history: the broker lost its data when the file was last written."""

JOBS_EACH = 10_000_000
"""How many numbers of jobs each client has for itself."""
BURST_SIZE = 1000
PATIENCE_SECONDS = 15.0

_ENDS: Sequence[tuple[type[RunEndedError], RunStatus]] = (
    (RunFailedError, RunStatus.FAILED),
    (RunCancelledError, RunStatus.CANCELLED),
    (RunDeadLetteredError, RunStatus.DEAD_LETTERED),
)


class _Memory:
    """What the earlier lives of this client have begun."""

    def __init__(self, path: Path) -> None:
        self.called: dict[int, bool] = {}
        """The jobs that were asked for, and whether there was an answer."""
        self.called_at: dict[int, float] = {}
        self.waiting: dict[str, int] = {}
        """The runs that were accepted and not heard of, with their jobs."""
        self.said: set[int] = set()
        for line in read_lines(path) if path.exists() else ():
            self._take_in(line)

    def _take_in(self, line: dict[str, Any]) -> None:
        match line["what"]:
            case "called":
                self.called[line["job"]] = False
                self.called_at[line["job"]] = line["at"]
            case "answered":
                self.called[line["job"]] = True
                if line["outcome"] == "accepted":
                    self.waiting[line["run_id"]] = line["job"]
            case "said":
                self.said.add(line["job"])
            case "heard" | "missing":
                self.waiting.pop(line["run_id"], None)


class _Load:
    """The work of one client."""

    def __init__(self, client: Client, folder: Path, number: int) -> None:
        path = folder / f"client-{number}.jsonl"
        memory = _Memory(path)
        self._client = client
        self._wiped = folder / WIPED
        self._recorder = Recorder(path)
        self._memory = memory
        mine = [job for job in memory.called if job < BURST]
        bursts = [job for job in memory.called if job >= BURST]
        self._numbers = count(max(mine, default=number * JOBS_EACH) + 1)
        self._burst_numbers = count(max(bursts, default=BURST + number * JOBS_EACH) + 1)
        self._stopping = False
        self._bursts: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Start nothing new."""
        self._stopping = True

    def burst(self) -> None:
        """Start many runs at once, beside everything else."""
        task = asyncio.get_running_loop().create_task(self._burst())
        self._bursts.add(task)

    async def run(self, in_flight: int) -> None:
        """Keep so many runs under way until it is told to stop; returns when all have ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._go_on())
            for _ in range(in_flight):
                group.create_task(self._keep_busy())
        while self._bursts:
            await asyncio.gather(*(self._bursts.pop() for _ in range(len(self._bursts))))

    async def _keep_busy(self) -> None:
        while not self._stopping:
            job = job_of(next(self._numbers))
            key = run_id_for_key(job.workflow.name, job.key) if job.is_keyed else None
            self._recorder.write("called", job=job.number, run_id=key)
            await self._start(job)

    async def _go_on(self) -> None:
        """Go on with what an earlier life had begun."""
        memory = self._memory
        again = [job_of(number) for number, is_answered in memory.called.items() if not is_answered]
        async with asyncio.TaskGroup() as group:
            for run_id, number in memory.waiting.items():
                job, since = job_of(number), self._memory.called_at[number]
                group.create_task(self._follow(job, self._client.handle(run_id, job.workflow), since))
            for job in again:
                if job.is_keyed and job.number < BURST:
                    group.create_task(self._start(job))

    async def _start(self, job: Job) -> None:
        since = time.time()
        handle = await self._enqueue(job)
        if handle is not None:
            await self._follow(job, handle, since)

    async def _enqueue(self, job: Job) -> Handle[Any] | None:
        wanted = _with_options(job)
        while True:
            asked_at = time.time()
            try:
                handle = await wanted.enqueue(self._client, *job.arguments)
            except AcceptanceTimeoutError as error:
                if job.is_keyed or error.run_id is None:
                    continue
                # The broker took it soon after it was asked to, and may have been wiped since.
                self._recorder.write("accepted", at=asked_at, run_id=error.run_id, is_stored=False)
                return self._client.handle(error.run_id, job.workflow)
            except EnqueueTimeoutError as error:
                if job.is_keyed:
                    continue  # The key makes it the same run, whether it was started or not.
                outcome = "refused" if error.certain else "unknown"
                self._recorder.write("answered", job=job.number, outcome=outcome, error=error.message)
                return None
            self._recorder.write("accepted", run_id=handle.id, is_stored=job.waits_for_store)
            self._recorder.write("answered", job=job.number, outcome="accepted", run_id=handle.id)
            return handle

    async def _follow(self, job: Job, handle: Handle[Any], since: float) -> None:
        """Say what has to be said, and wait for the end. What a broker held that was wiped *since* is said again."""
        in_doubt = False
        if job.says is not None and job.number not in self._memory.said:
            await self._say(job, handle)
        while not await self._has_ended(handle):
            if self._was_wiped(since):
                since, in_doubt = time.time(), True
            if in_doubt:
                there = await self._is_there(handle)
                if there is False:
                    return
                if there and job.says is not None:
                    await self._say(job, handle)
                in_doubt = there is None

    async def _has_ended(self, handle: Handle[Any]) -> bool:
        """Wait for the end, for a while; tell whether it was heard of."""
        try:
            result = await handle.wait_for_completion(timeout=PATIENCE_SECONDS)
        except CompletionTimeoutError:
            return False
        except RunNotFoundError:
            self._recorder.write("missing", run_id=handle.id)
            return True
        except RunEndedError as error:
            status = next(status for kind, status in _ENDS if isinstance(error, kind))
            self._recorder.write("heard", run_id=handle.id, status=status, result=None)
            return True
        self._recorder.write("heard", run_id=handle.id, status=RunStatus.COMPLETED, result=result)
        return True

    async def _say(self, job: Job, handle: Handle[Any]) -> None:
        while True:
            try:
                await handle.send(SIGNAL, job.says)
            except AikiError as error:  # Said again: a word that arrives twice is waited for once.
                self._recorder.write("unsaid", job=job.number, error=error.message)
                continue
            self._recorder.write("said", job=job.number)
            return

    async def _is_there(self, handle: Handle[Any]) -> bool | None:
        """Tell whether the run is in the store, or went with the broker; ``None``: nobody answers now."""
        try:
            await self._client.get(handle.id)
        except RunNotFoundError:
            self._recorder.write("missing", run_id=handle.id)
            return False
        except AikiError:
            return None
        return True

    def _was_wiped(self, since: float) -> bool:
        # Files are stamped with the time of the last tick of the system, some milliseconds ago.
        return self._wiped.exists() and self._wiped.stat().st_mtime >= since - 0.05

    async def _burst(self) -> None:
        numbers = [next(self._burst_numbers) for _ in range(BURST_SIZE)]
        jobs = [job_of(number) for number in numbers]
        since = time.time()
        for number in numbers:
            self._recorder.write("called", job=number)
        calls = [chaos_chain.arguments(number, BURST_STEPS) for number in numbers]
        wanted: Workflow[..., int] = chaos_chain.with_options(recoveries_max=1000)
        try:
            handles = await wanted.enqueue_many(self._client, calls)
        except BatchNotEnqueuedError as error:
            # Which of them these are is told by their inputs, in the store.
            for run_id in (handle.id for handle in error.handles if isinstance(handle, Handle)):
                self._recorder.write("accepted", run_id=run_id, is_stored=False)
            return
        for number, handle in zip(numbers, handles, strict=True):
            self._recorder.write("accepted", run_id=handle.id, is_stored=False)
            self._recorder.write("answered", job=number, outcome="accepted", run_id=handle.id)
        async with asyncio.TaskGroup() as group:
            for job, handle in zip(jobs, handles, strict=True):
                group.create_task(self._follow(job, handle, since))


def _with_options(job: Job) -> Workflow[..., Any]:
    # Faults come faster than in life; a run that loses many workers in a row is not to be blamed for that.
    if job.is_keyed:
        return job.workflow.with_options(recoveries_max=1000, idempotency_key=job.key)
    return job.workflow.with_options(recoveries_max=1000, confirm="stored" if job.waits_for_store else "broker")


async def _work(number: int, in_flight: int, folder: Path) -> None:
    async with Client.connect(name=f"chaos-{number}") as client:
        load = _Load(client, folder, number)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, load.stop)
        loop.add_signal_handler(signal.SIGUSR1, load.burst)
        print(STARTED, flush=True)
        await load.run(in_flight)
    print(FINISHED, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Be the client of that number, with so many runs in flight."""
    number, in_flight = map(int, arguments)
    asyncio.run(_work(number, in_flight, Path(os.environ[HISTORY_VARIABLE])))


if __name__ == "__main__":
    main(sys.argv[1:])
