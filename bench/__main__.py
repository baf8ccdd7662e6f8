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
from bench.figures import RAW, Figures, Line, limits, limits_table, lines_of, table, write_json
from bench.load import Scale
from bench.raw.client import raw_client
from bench.raw.rows import RAW_ROWS, warm_up_raw
from bench.raw.system import RawSystem
from bench.rows import ROWS, warm_up
from bench.system import System, servers
from bench.workflows import three_steps


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    before = os.getloadavg()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="aiki-bench-") as name:
        lines += _measure_alone(Path(name), options)
        lines += _measure_served(Path(name), options)
    compared = limits(lines)
    print(limits_table(compared))
    conditions = _conditions(options, before)
    print("\n" + ", ".join(f"{key}: {value}" for key, value in conditions.items()))
    if options.json is not None:
        write_json(options.json, lines, compared, conditions=conditions)


def _measure_alone(folder: Path, options: argparse.Namespace) -> list[Line]:
    scale = Scale(options.scale)
    lines: list[Line] = []
    for row in (row for row in options.rows if row in ROWS_ALONE):
        lines += _shown(row, [ROWS_ALONE[row](folder, scale) for _ in range(options.rounds)])
    return lines


def _measure_served(folder: Path, options: argparse.Namespace) -> list[Line]:
    rows = [row for row in options.rows if row in ROWS]
    raw_rows = [row for row in RAW_ROWS if _raw(row) in options.rows]
    lines: list[Line] = []
    if rows or raw_rows:
        with servers(folder) as (rabbit, mongo):
            if rows:
                with System(rabbit, mongo, folder) as system:
                    system.orchestrator().wait_until_ready()
                    lines += asyncio.run(_rounds(system, rows, options))
            if raw_rows:
                with RawSystem(rabbit, mongo, folder) as system:
                    for service in (system.orchestrator(), system.worker()):
                        service.wait_until_ready()
                    lines += asyncio.run(_raw_rounds(system, raw_rows, options))
    return lines


async def _rounds(system: System, rows: Sequence[str], options: argparse.Namespace) -> list[Line]:
    scale = Scale(options.scale)
    lines: list[Line] = []
    async with Client.connect(system.rabbit.url) as client:
        for name in rows:
            row = ROWS[name]
            if await asyncio.to_thread(system.serve, row.queue) and row.queue in (None, three_steps.queue):
                await warm_up(client)
            lines += _shown(name, [await row.measure(system, client, scale) for _ in range(options.rounds)])
    return lines


async def _raw_rounds(system: RawSystem, rows: Sequence[str], options: argparse.Namespace) -> list[Line]:
    scale = Scale(options.scale)
    lines: list[Line] = []
    async with raw_client(system.url) as client:
        await warm_up_raw(client)
        for row in rows:
            figures = [await RAW_ROWS[row](system, client, scale) for _ in range(options.rounds)]
            lines += _shown(_raw(row), figures)
    return lines


def _raw(row: str) -> str:
    return f"{RAW}-{row}"


def _shown(row: str, figures: Sequence[Figures]) -> list[Line]:
    lines = lines_of(row, figures)
    print(table(lines), flush=True)
    return lines


def _conditions(options: argparse.Namespace, before: tuple[float, float, float]) -> Mapping[str, object]:
    return {
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
        "cores": os.cpu_count(),
        "load before": round(before[0], 2),
        "load after": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
        "scale": options.scale,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Aiki on servers of its own.")
    known = [*ROWS_ALONE, *ROWS, *(_raw(row) for row in RAW_ROWS)]
    raw = [row for row in known if row.startswith(_raw(""))]
    parser.add_argument(
        "rows", nargs="*", metavar="row", help=f"any of {', '.join(known)}; {RAW} for the raw ones; all without"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is done in a round (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    wanted = [name for row in options.rows for name in (raw if row == RAW else [row])]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(known)}")
    options.rows = wanted or known
    return options


if __name__ == "__main__":
    main()
