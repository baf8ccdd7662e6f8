"""Break real clusters: `python -m aiki.testing.chaos --seed 7 --faults 60 --runs 5000`."""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiki.testing.chaos.chaos import Plan, run_chaos
from aiki.testing.chaos.cluster import Size
from aiki.testing.chaos.faults import KINDS
from aiki.testing.chaos.report import Report, added_up, table

__all__ = ["main"]

VIOLATIONS_SHOWN = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Do a chaos run as the command line says; tells whether everything held."""
    options = _parser().parse_args(arguments)
    if options.sum:
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in options.sum]
        print(table(added_up([Report.from_json(content) for content in contents])))
        return 0
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    kinds = [kind for kind in KINDS if any(kind.startswith(only) for only in options.only)]
    if options.no_wipe:
        kinds = [kind for kind in kinds if kind != "broker-wipe"]
    plan = Plan(
        seed=seed,
        faults=options.faults,
        runs=options.runs,
        seconds=options.minutes * 60,
        kinds=kinds,
        every=options.every,
        at_once=options.at_once,
        size=Size(in_flight=options.in_flight),
    )
    folder = Path(tempfile.mkdtemp(prefix="aiki-chaos-"))
    keep = options.keep
    try:
        chaos = asyncio.run(run_chaos(plan, folder, say=lambda text: print(text, flush=True)))
        keep = keep or bool(chaos.violations)
    finally:
        if keep:
            print(f"logs and histories are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(chaos.report))
    for violation in chaos.violations[:VIOLATIONS_SHOWN]:
        print(violation)
    if options.json is not None:
        options.json.write_text(json.dumps(chaos.report.as_json(), indent=1), encoding="utf-8")
    return int(bool(chaos.violations))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aiki.testing.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="where chance begins (default: a fresh one, which is printed)")
    parser.add_argument("--faults", type=int, default=50, help="how many at least (default: 50)")
    parser.add_argument("--runs", type=int, default=5000, help="how many at least (default: 5000)")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults are made at most (default: 3)")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults (default: 2)")
    parser.add_argument("--at-once", type=int, default=3, help="how many faults may overlap (default: 3)")
    parser.add_argument(
        "--in-flight", type=int, default=200, help="runs that each client keeps under way (default: 200)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="KIND", help="only kinds that begin with one of these"
    )
    parser.add_argument("--no-wipe", action="store_true", help="do not take the brokers' data away")
    parser.add_argument("--keep", action="store_true", help="keep logs and histories (they are kept when it fails)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="FILE", help="only add up what --json has written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
