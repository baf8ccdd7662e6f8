"""`python -m bench.overload`: far more runs than one slow worker can take, and what they do to every process."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from aiki import Client, Run, task, workflow
from bench.soak.samples import of_rabbitmq
from bench.system import System, servers

__all__ = ["Peaks", "overload", "slow"]

TASK_SECONDS = 0.02
PART = 1_000
LOOK_SECONDS = 0.5

# Long enough for a machine that has other things to do.
PATIENCE = 3_600.0


@task
async def take_time(number: int) -> int:
    """Hold a slot for a while."""
    await asyncio.sleep(TASK_SECONDS)
    return number + 1


@workflow(version="1.0.0")
async def slow(run: Run, number: int) -> int:
    """One task that takes its time."""
    return await take_time.run(run, number)


class Peaks:
    """The most memory that each process had, in MiB, beside what it had in the beginning."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.before = self._now()
        self.most = dict(self.before)

    def look(self) -> None:
        """Look once more."""
        self.most = {name: max(self.most[name], size) for name, size in self._now().items()}

    @property
    def growth(self) -> Mapping[str, float]:
        """By how much each process has grown at most."""
        return {name: self.most[name] - before for name, before in self.before.items()}

    @asynccontextmanager
    async def watched(self, *also: Callable[[], None]) -> AsyncIterator[None]:
        """Look again and again, inside the block, and do what else is to be done then."""

        async def keep_looking() -> None:
            while True:
                await asyncio.to_thread(lambda: [look() for look in (self.look, *also)])
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(keep_looking())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            self.look()

    def _now(self) -> dict[str, float]:
        return {name: process.memory_info().rss / 2**20 for name, process in self._processes.items()}


async def overload(client: Client, runs: int) -> tuple[float, float]:
    """Enqueue *runs* as fast as they are taken, wait for all; give the seconds until all were taken, and over.

    Raises:
        AssertionError: a run ended otherwise than it should have.
    """
    began = time.monotonic()
    handles = []
    for start in range(0, runs, PART):
        handles += await slow.enqueue_many(client, range(start, min(start + PART, runs)))
    taken = time.monotonic() - began
    for number, handle in enumerate(handles):
        result = await handle.wait_for_completion(timeout=PATIENCE)
        assert result == number + 1, f"run {handle.id} ended with {result}"
    return taken, time.monotonic() - began


async def _measure(system: System, runs: int) -> None:
    backlog: list[float] = []

    def look_at_queues() -> None:
        backlog.append(dict(of_rabbitmq(system.rabbit)).get("messages", 0.0))

    async with Client.connect(system.rabbit.url) as client:
        await overload(client, 100)  # Everything is imported and declared.
        peaks = Peaks(system.pids)
        async with peaks.watched(look_at_queues):
            taken, over = await overload(client, runs)
    print(f"{runs:,} runs: taken in {taken:.1f} s ({runs / taken:,.0f}/s), over in {over:.0f} s ({runs / over:,.0f}/s)")
    print(f"at most {max(backlog):,.0f} messages in the broker\n")
    print("| Process | MiB before | MiB at most |\n|---|---|---|")
    for name, before in peaks.before.items():
        print(f"| {name} | {before:.0f} | {peaks.most[name]:.0f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start what is needed, and measure once."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description="Enqueue more than can be done.")
    parser.add_argument("--runs", type=int, default=100_000, help="how many (%(default)s)")
    parser.add_argument("--slots", type=int, default=20, help="runs that the one worker holds at once (%(default)s)")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="aiki-overload-") as name,
        servers(Path(name)) as (rabbit, mongo),
        System(rabbit, mongo, Path(name)) as system,
    ):
        system.environment |= {"AIKI_APP": "bench.overload", "AIKI_CONCURRENCY": str(options.slots)}
        for service in (system.orchestrator(), system.worker()):
            service.wait_until_ready()
        asyncio.run(_measure(system, options.runs))


if __name__ == "__main__":
    main()
