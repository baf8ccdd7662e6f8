"""`python -m bench.soak`: mixed work with faults, sampled, until the time is over; then what grew, and a picture."""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from aiki import Client
from bench.soak.curves import Trend, draw, table, trends
from bench.soak.faults import Faults, start_watched
from bench.soak.load import KINDS, Load
from bench.soak.samples import Sample, take_sample
from bench.soak.watched import Census
from bench.system import System, servers

__all__: list[str] = []

SERVICES = ("veteran orchestrator", "veteran worker", "recruit orchestrator", "recruit worker")

# Finished runs go after this long, so that the collections have a level to keep.
RETENTION_SECONDS = 60

WARM_UP_SECONDS_MAX = 300.0
SETTLED_SECONDS = RETENTION_SECONDS + 90.0


def main() -> None:
    """Soak, and end with exit code 1 if anything was lost, wrong or left over."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="aiki-soak-") as name,
        servers(Path(name)) as (rabbit, mongo),
        System(rabbit, mongo, Path(name)) as system,
    ):
        system.environment |= {"AIKI_APP": "bench.soak.workflows", "AIKI_RETENTION": str(RETENTION_SECONDS)}
        soak = Soak(system, options)
        asyncio.run(soak.run())
    sys.exit(0 if soak.report() else 1)


class Soak:
    """One soak: the load, the faults and the samples side by side, and what they say in the end."""

    def __init__(self, system: System, options: argparse.Namespace) -> None:
        self._system = system
        self._options = options
        self._samples: list[Sample] = []
        self._began = time.monotonic()
        self._left_over: Mapping[str, float] = {}
        self._faults = Faults(system, every=options.fault_every, seed=options.seed)
        self._load: Load | None = None

    async def run(self) -> None:
        """Work for as long as was asked for; then mend everything, and wait until it is quiet."""
        for name in SERVICES:
            service = await asyncio.to_thread(start_watched, self._system, name)
            await asyncio.to_thread(service.wait_until_ready)
        self._began = time.monotonic()
        async with Client.connect(self._system.rabbit.url, name="soak") as client:
            load = self._load = Load(client, rate=self._options.rate, seed=self._options.seed, only=self._options.only)
            await self._for_a_while(load.keep_coming(), self._faults.keep_coming(), self._keep_sampling(load))
            await load.finish()
        self._left_over = await self._once_it_is_quiet()

    async def _for_a_while(self, *works: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.create_task(work) for work in works]
        done, _ = await asyncio.wait(tasks, timeout=self._options.minutes * 60, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            await task

    async def _keep_sampling(self, load: Load) -> None:
        census = Census()
        self._options.samples.parent.mkdir(parents=True, exist_ok=True)
        with self._options.samples.open("w") as lines:
            while True:
                await asyncio.sleep(self._options.sample_every)
                at = time.monotonic() - self._began
                seen = await asyncio.to_thread(take_sample, self._system)
                own = census.take()
                sample = {
                    "at": round(at, 1),
                    **seen,
                    "client/tasks": own["tasks"] - load.in_flight,
                    "client/objects": own["objects"],
                    "load/in flight": load.in_flight,
                    "load/started": load.started,
                    "load/slowest seconds": round(load.take_slowest(), 2),
                }
                self._samples.append(sample)
                print(json.dumps(sample), file=lines, flush=True)

    async def _once_it_is_quiet(self) -> Mapping[str, float]:
        """Wait until nothing is left over, and tell what still is in the end."""
        end = time.monotonic() + SETTLED_SECONDS
        while left := _left_over(await asyncio.to_thread(take_sample, self._system)):
            if time.monotonic() > end:
                break
            await asyncio.sleep(1.0)
        return left

    def report(self) -> bool:
        """Print what happened, and tell whether all of it is as it should be."""
        load = self._load
        assert load is not None
        minutes = self._samples[-1]["at"] / 60 if self._samples else 0.0
        warm_up = min(WARM_UP_SECONDS_MAX, 60 * minutes / 4)
        found = trends(self._samples, after=warm_up)
        grown = [one for one in found if not one.is_flat and _counts(one)]
        print(f"\n{minutes:.1f} minutes, {self._options.rate:g} runs/s wanted, seed {self._options.seed}")
        print(f"{load.started} runs started, {load.right} ended as they should, {sum(load.wrong.values())} did not")
        print(f"not confirmed in time: {dict(load.uncertain) or 'none'}; wrong: {dict(load.wrong) or 'none'}")
        print(f"{sum(self._faults.counts.values())} faults: {dict(self._faults.counts.most_common())}")
        print(f"left over: {self._left_over or 'nothing'}")
        print(f"\nAfter a warm-up of {warm_up:.0f} s:\n\n{table(found)}\n")
        print(f"not flat: {', '.join(one.name for one in grown) or 'nothing'}")
        if self._options.picture is not None:
            draw(self._samples, self._options.picture, title=self._title(minutes, load))
        return not (load.wrong or self._left_over or grown)

    def _title(self, minutes: float, load: Load) -> str:
        faults = sum(self._faults.counts.values())
        return f"{minutes:.0f} minutes, {load.started:,} runs, {faults} faults (seed {self._options.seed})"


def _left_over(sample: Sample) -> dict[str, float]:
    """Choose what has to be gone once everything is over and expired."""
    gone = ("mongodb/unfinished runs", "mongodb/documents in runs", "mongodb/documents in journal")
    return {
        name: value
        for name, value in sample.items()
        if value and (name in gone or name.startswith("rabbitmq/messages"))
    }


def _counts(trend: Trend) -> bool:
    """Choose what is ours. The servers have their own ways, and the lengths of queues and collections follow the load.

    These have to come down to nothing in the end, see ``_left_over``.
    """
    return trend.name.startswith(("veteran", "client"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Look for what grows.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it works (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="runs a second (%(default)s)")
    parser.add_argument("--fault-every", type=float, default=5.0, help="seconds between faults (%(default)s)")
    parser.add_argument("--sample-every", type=float, default=5.0, help="seconds between samples (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what faults and work are drawn from (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), default=(), help="some kinds of work only")
    parser.add_argument("--samples", type=Path, default=Path(".aiki/soak.jsonl"), help="where samples go (%(default)s)")
    parser.add_argument("--picture", type=Path, help="where a picture goes (PNG; needs matplotlib)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
