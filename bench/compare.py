"""`python -m bench.compare BASE`: two revisions in turn on one machine, and the ratio between them.

Each revision runs from a worktree of its own, with the services, workflows and rows that it had: what a bench of
today measures with could otherwise not be what the code of then can do. A round of the one is followed by a round of
the other, first one first and then the other, so that whatever else the machine does meets both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["Ratio", "main", "ratios", "ratios_table"]

ROWS = ("throughput", "latency")

# What two series of the same code may differ by on a machine that does nothing else.
NOISE = 0.2

Round = Mapping[tuple[str, str], float]
"""What one round measured, by row and figure."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of both revisions: medians, and the ratios of the rounds that followed each other."""

    row: str
    figure: str
    base: float
    head: float
    ratio: float
    lowest: float
    highest: float

    @property
    def verdict(self) -> str:
        """Tell whether there is a difference: rounds that agree about it, and more of it than noise."""
        if self.lowest <= 1 <= self.highest:
            return "none: the rounds disagree"
        return "none: within the noise" if abs(self.ratio - 1) < NOISE else f"{self.ratio - 1:+.0%}"


def main() -> None:
    """Measure both and print the ratios."""
    options = _options()
    pairs: list[tuple[Round, Round]] = []
    with tempfile.TemporaryDirectory(prefix="aiki-compare-") as name, _worktree(options.base, Path(name)) as base:
        for number in range(options.rounds):
            order = (base, Path.cwd()) if number % 2 == 0 else (Path.cwd(), base)
            measured = {tree: _measure(tree, options, Path(name) / "round.json") for tree in order}
            pairs.append((measured[base], measured[Path.cwd()]))
            print(f"round {number + 1} of {options.rounds} done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print(ratios_table(ratios(pairs), base=options.base))


def ratios(pairs: Sequence[tuple[Round, Round]]) -> list[Ratio]:
    """Compare the rounds of the base with those of the head; what only one of them measures is left out."""
    found = []
    for row, figure in pairs[0][0]:
        values = [(base.get((row, figure), 0.0), head.get((row, figure), 0.0)) for base, head in pairs]
        if all(base > 0 and head > 0 for base, head in values):
            each = [head / base for base, head in values]
            of_base, of_head = median(base for base, _ in values), median(head for _, head in values)
            found.append(Ratio(row, figure, of_base, of_head, median(each), min(each), max(each)))
    return found


def ratios_table(found: Sequence[Ratio], *, base: str) -> str:
    """Write *found* for people."""
    lines = [f"{'':44}{base:>12}{'now':>12}{'ratio':>8}   {'of the rounds':<16}difference"]
    for one in found:
        spread = f"{one.lowest:.2f} – {one.highest:.2f}"
        title = f"{one.row}, {one.figure.strip()}"
        lines.append(f"{title:<44}{one.base:>12,.2f}{one.head:>12,.2f}{one.ratio:>8.2f}   {spread:<16}{one.verdict}")
    return "\n".join(lines)


def _measure(tree: Path, options: argparse.Namespace, file: Path) -> Round:
    command = [sys.executable, "-m", "bench", *options.rows, "--rounds", "1", "--scale", str(options.scale)]
    # The package that is installed is the one of this folder: the path puts the worktree before it.
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([*command, "--json", str(file)], cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {(line["row"], line["figure"]): line["median"] for line in json.loads(file.read_text())["lines"]}


@contextmanager
def _worktree(revision: str, folder: Path) -> Iterator[Path]:
    """Check *revision* out in *folder*; the checkout is gone at the end."""
    tree = folder / "base"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], check=True)
    # Servers that were fetched are found in the cache of a checkout.
    (tree / ".cache").symlink_to(Path.cwd() / ".cache")
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Measure two revisions in turn.")
    parser.add_argument("base", help="the revision to compare with; what is compared is this folder as it is")
    parser.add_argument("rows", nargs="*", default=ROWS, help=f"rows of the bench ({' '.join(ROWS)})")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each (%(default)s)")
    parser.add_argument("--scale", type=float, default=0.3, help="how much is done in a round (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
