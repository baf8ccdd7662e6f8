"""Simulate seeds: `python -m aiki.testing.simulation 0..1000`, or one of them with its trace.

python -m aiki.testing.simulation 0..1000             all of these, on all cores
python -m aiki.testing.simulation 42 --trace          one, step by step
python -m aiki.testing.simulation 42 --faults "11:kill-after:0.3 30:freeze:0.5"
"""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from aiki.testing.simulation.faults import Fault
from aiki.testing.simulation.shrinking import shrink
from aiki.testing.simulation.simulation import Report, simulate

__all__ = ["main"]

# Sets of text have another order in every process, unless it is told which.
_HASH_SEED = "0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate what the command line says; tells whether everything held."""
    options = _parser().parse_args(arguments)
    seeds = _seeds(options.seeds)
    if options.trace or options.faults is not None:
        faults = None if options.faults is None else [Fault.load(text) for text in options.faults.split()]
        reports = [simulate(seed, faults=faults, traced=options.trace) for seed in seeds]
        for report in reports:
            print("\n".join(report.trace))
            print("\n".join(report.violations))
        return int(any(report.violations for report in reports))
    return _simulate_all(seeds, workers=options.workers, enough=options.enough, brief=options.brief)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aiki.testing.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("seeds", help="a seed, a range (0..1000), or fresh:N for N that nobody has tried")
    parser.add_argument("--trace", action="store_true", help="show every step")
    parser.add_argument("--faults", help="these instead of those that the seed says, as step:kind:size")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument(
        "--brief", action="store_true", help="say which seeds fail, and do not look for the fewest faults"
    )
    parser.add_argument("--enough", type=int, default=3, help="stop after so many failures (default: 3)")
    return parser


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    if dots:
        return range(int(first), int(last))
    kind, colon, number = text.partition(":")
    if colon and kind == "fresh":
        start = secrets.randbelow(10**12)
        return range(start, start + int(number))
    return range(int(text), int(text) + 1)


def _simulate_all(seeds: range, *, workers: int, enough: int, brief: bool) -> int:
    began = time.monotonic()
    print(f"seeds {seeds.start}..{seeds.stop}", flush=True)
    failed: list[Report] = []
    done = executions = steps = 0
    for report in _reports(seeds, workers=workers):
        done += 1
        executions += report.executions
        steps += report.steps
        if report.violations:
            failed.append(report)
            _explain(report if brief else shrink(report))
            if len(failed) >= enough:
                break
    took = time.monotonic() - began
    rate = done / took * 60 if took else 0
    print(
        f"{done} scenarios in {took:.1f} s ({rate:,.0f} a minute), {executions} attempts of tasks, {steps} steps that "
        f"could fail: {len(failed)} failed"
    )
    return int(bool(failed))


def _reports(seeds: range, *, workers: int) -> Iterator[Report]:
    if workers <= 1 or len(seeds) == 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            yield from pool.map(partial(simulate, traced=False), seeds, chunksize=10)
        finally:
            pool.shutdown(cancel_futures=True)


def _explain(shortest: Report) -> None:
    """Say what went wrong, and how to see it again."""
    faults = " ".join(map(str, shortest.faults))
    print(f"\nseed {shortest.seed} fails:", *shortest.violations, sep="\n  ")
    print(f'again: python -m aiki.testing.simulation {shortest.seed} --trace --faults "{faults}"')
    print(*shortest.trace[-60:], sep="\n", flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        os.environ["PYTHONHASHSEED"] = _HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "aiki.testing.simulation", *sys.argv[1:]])
    sys.exit(main())
