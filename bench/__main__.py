"""`python -m bench`: start what is needed, measure, print a table, and write JSON if asked to."""

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiki import Client
from bench.alone import ROWS_ALONE
from bench.figures import Figures, Line, lines_of, table, write_json
from bench.rows import ROWS, Scale, warm_up
from bench.system import System, a_system


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    scale = Scale(options.scale)
    before = os.getloadavg()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="aiki-bench-") as name:
        folder = Path(name)
        for row in (row for row in options.rows if row in ROWS_ALONE):
            lines += _shown(row, [ROWS_ALONE[row](folder, scale) for _ in range(options.rounds)])
        served = [row for row in options.rows if row in ROWS]
        if served:
            with a_system(folder) as system:
                lines += asyncio.run(_measure(system, served, scale, rounds=options.rounds))
    conditions = _conditions(options, before)
    print("\n" + ", ".join(f"{key}: {value}" for key, value in conditions.items()))
    if options.json is not None:
        write_json(options.json, lines, conditions=conditions)


async def _measure(system: System, rows: Sequence[str], scale: Scale, *, rounds: int) -> list[Line]:
    for service in (system.orchestrator(), system.worker()):
        service.wait_until_ready()
    lines: list[Line] = []
    async with Client.connect(system.rabbit.url) as client:
        await warm_up(client)
        for row in rows:
            figures: list[Figures] = [await ROWS[row](system, client, scale) for _ in range(rounds)]
            lines += _shown(row, figures)
    return lines


def _shown(row: str, figures: Sequence[Figures]) -> list[Line]:
    lines = lines_of(row, figures)
    print(table(lines), flush=True)
    return lines


def _conditions(options: argparse.Namespace, before: tuple[float, float, float]) -> Mapping[str, object]:
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load before": round(before[0], 2),
        "load after": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
        "scale": options.scale,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Aiki on servers of its own.")
    known = [*ROWS_ALONE, *ROWS]
    parser.add_argument("rows", nargs="*", metavar="row", help=f"any of {', '.join(known)}; all without")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is done in a round (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    unknown = sorted(set(options.rows) - set(known))
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(known)}")
    options.rows = options.rows or known
    return options


if __name__ == "__main__":
    main()
