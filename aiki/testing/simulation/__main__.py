"""Simulate seeds: `python -m aiki.testing.simulation 0..1000`, or one of them with its trace.

python -m aiki.testing.simulation 0..1000             all of these, on all cores
python -m aiki.testing.simulation 42 --trace          one, step by step
python -m aiki.testing.simulation 42 --faults "11:kill-after:0.3 30:freeze:0.5"
python -m aiki.testing.simulation 0..1000000 --record seeds.json
                                                      those that the record has not; may be ended at any time
python -m aiki.testing.simulation 0..1000000 --record seeds.json --fresh
                                                      those that it has of no revision of the code
python -m aiki.testing.simulation --summary seeds.json
                                                      what it has, as tables in Markdown
"""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from aiki.testing.simulation.faults import Fault
from aiki.testing.simulation.pool import in_blocks, tallies
from aiki.testing.simulation.record import Record, RecordInUseError, opened, revisions, summary
from aiki.testing.simulation.shrinking import shrink
from aiki.testing.simulation.simulation import Report, simulate
from aiki.testing.simulation.tally import Tally

__all__ = ["main"]

# Sets of text have another order in every process, unless it is told which.
_HASH_SEED = "0"

# Seeds that are given out at once: enough to be worth the words, few enough to be done again after a crash.
BLOCK = 10

# Scenarios after which a long run says how far it is.
NEWS_EVERY = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate what the command line says; tells whether everything held."""
    options = _parser().parse_args(arguments)
    if options.summary is not None:
        print(summary(Record(options.summary)))
        return 0
    seeds = _seeds(options.seeds)
    if options.record is not None:
        return _go_on(seeds, options.record, workers=options.workers, fresh=options.fresh)
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
    parser.add_argument(
        "seeds",
        nargs="?",
        default="fresh:500",
        help="a seed, a range (0..1000), or fresh:N for N that nobody has tried",
    )
    parser.add_argument("--trace", action="store_true", help="show every step")
    parser.add_argument("--faults", help="these instead of those that the seed says, as step:kind:size")
    parser.add_argument("--record", type=Path, metavar="FILE", help="leave out what is done, and note what was done")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="with --record: leave out what any revision of the code has passed",
    )
    parser.add_argument("--summary", type=Path, metavar="FILE", help="say what a record holds, and simulate nothing")
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
    total = Tally()
    for _, tally in tallies(in_blocks(seeds, BLOCK if workers > 1 else 1), workers=workers):
        total.add(tally)
        for seed in tally.failed:
            report = simulate(seed)
            _explain(report if brief else shrink(report))
        if len(total.failed) >= enough:
            break
    took = time.monotonic() - began
    rate = total.scenarios / took * 60 if took else 0
    print(
        f"{total.scenarios} scenarios in {took:.1f} s ({rate:,.0f} a minute), {total.attempts} attempts of tasks, "
        f"{total.steps} steps that could fail: {len(total.failed)} failed"
    )
    return int(bool(total.failed))


def _go_on(seeds: range, path: Path, *, workers: int, fresh: bool) -> int:
    """Simulate what the record does not have yet; tells whether anything fails in this revision."""
    revision, simulation = revisions()
    try:
        with opened(path) as record:
            part = record.part(revision)
            left = record.left(seeds, revision, fresh=fresh)
            print(f"{sum(map(len, left)):,} of {len(seeds):,} seeds are left for revision {revision}", flush=True)
            blocks = chain.from_iterable(in_blocks(span, BLOCK) for span in left)
            for block, tally in tallies(blocks, workers=workers):
                record.keep(block, tally, revision=revision, simulation=simulation)
                for seed in tally.failed:
                    _explain(shrink(simulate(seed)))
                if part.tally.scenarios % NEWS_EVERY < len(block):
                    print(f"{part.tally.scenarios:,} done, {len(part.tally.failed)} failed", flush=True)
            return int(bool(part.tally.failed))
    except RecordInUseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ended; the same command goes on from what {path} has", file=sys.stderr)
        return 130


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
