"""`python -m bench.beside`: start Aiki and Restate, give both the same work in turn, and print the figures of both."""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiki import Client
from bench.beside.http import HttpClient
from bench.beside.restate import RestateNode, ServiceNode, find_restate_server
from bench.beside.rows import ROWS
from bench.beside.sides import AikiSide, RestateSide, Side
from bench.beside.table import beside_table
from bench.load import Scale
from bench.system import System, servers

PACKAGES = ("restate-sdk", "granian")
WHERE_NPM_MAY_HAVE_PUT_IT = (Path(), Path(".cache"))


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="aiki-beside-") as name:
        _measure(Path(name), options)
    conditions = {
        **options.versions,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load before": round(before, 2),
        "load after": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
        "scale": options.scale,
    }
    print("\n" + ", ".join(f"{key}: {value}" for key, value in conditions.items()))


def _measure(folder: Path, options: argparse.Namespace) -> None:
    with (
        servers(folder) as (rabbit, mongo),
        System(rabbit, mongo, folder) as system,
        RestateNode(folder / "restate", options.server) as server,
        ServiceNode(folder / "service", options.python) as service,
    ):
        system.orchestrator().wait_until_ready()
        server.register(service.url)
        asyncio.run(_rounds(system, server, service, options))


async def _rounds(system: System, server: RestateNode, service: ServiceNode, options: argparse.Namespace) -> None:
    async with Client.connect(system.rabbit.url) as client, HttpClient(server.ports["ingress"]) as http:
        sides = (AikiSide(system, client), RestateSide(server, service, http))
        for name in options.rows:
            await asyncio.to_thread(system.serve, ROWS[name].queue)
            print(await _compared(name, sides, options), flush=True)


async def _compared(name: str, sides: tuple[Side, Side], options: argparse.Namespace) -> str:
    """Let a round of the one follow each round of the other, so that whatever else the machine does meets both."""
    row, scale = ROWS[name], Scale(options.scale)
    for side in sides:
        await row.warm_up(side)
    first, second = sides
    pairs = [(await row.measure(first, scale), await row.measure(second, scale)) for _ in range(options.rounds)]
    return beside_table(name, (first.name, second.name), pairs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description="Measure Aiki and Restate in turn.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"any of {', '.join(ROWS)}; all without")
    parser.add_argument(
        "--server", type=Path, help="the program restate-server (default: where npm put it, or the path)"
    )
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="an interpreter with the extra `beside` (this one)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is done in a round (%(default)s)")
    options = parser.parse_args()
    if unknown := sorted(set(options.rows) - set(ROWS)):
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    options.rows = options.rows or list(ROWS)
    options.server = options.server or next(filter(None, map(find_restate_server, WHERE_NPM_MAY_HAVE_PUT_IT)), None)
    if options.server is None:
        parser.error(
            "no restate-server found: npm install --prefix .cache @restatedev/restate-server, or give --server"
        )
    try:
        options.versions = {"restate-server": _version(options.server), **_packages(options.python)}
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"{error}; is the extra installed? {options.python} -m pip install --editable '.[beside]'")
    return options


def _version(server: Path) -> str:
    return _said([str(server), "--version"]).split()[-1]


def _packages(python: Path) -> dict[str, str]:
    code = f"from importlib.metadata import version\nprint(*map(version, {PACKAGES}))"
    return dict(zip(PACKAGES, _said([str(python), "-c", code]).split(), strict=True))


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
