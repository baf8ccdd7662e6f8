"""Simulate with a defect: `python -m tests.simulation.notice NAME`. Says which seeds notice it.

The broken module takes the place of the real one in this process; nothing on the disk is changed.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.simulation.defects import DEFECTS, Defect

ROOT = Path(__file__).parents[2]


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        """Compile the broken text, whatever was compiled before."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


class Breaker(MetaPathFinder):
    """Has modules imported as a defect leaves them."""

    def __init__(self, defect: Defect) -> None:
        self._texts = {
            path.removesuffix(".py").replace("/", "."): (str(ROOT / path), text)
            for path, text in defect.broken(ROOT).items()
        }

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the modules that are broken, and no other."""
        if fullname not in self._texts:
            return None
        file, text = self._texts[fullname]
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file, text))


def noticed(
    defect: Defect, seeds: range, *, everything: bool = False, certain: bool = False
) -> Iterator[tuple[int, int, list[str]]]:
    """Simulate those of *seeds* that have the profile of *defect*: gives how many that were, which, and what was wrong.

    With *everything*, all seeds; when *certain*, leaves out the faults after which nobody knows what was written.
    """
    from aiki.testing.simulation.faults import UNCERTAIN
    from aiki.testing.simulation.profiles import profile_of
    from aiki.testing.simulation.simulation import simulate

    tried = 0
    for seed in seeds:
        if not everything and profile_of(seed).name != defect.profile:
            continue
        tried += 1
        violations = simulate(seed, without=UNCERTAIN if certain else ()).violations
        if violations:
            yield tried, seed, violations
    yield tried, -1, []


def main(arguments: list[str] | None = None) -> int:
    """Break, simulate, and tell whether it was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.notice", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="what the defect is called, or the beginning of that; all: every one")
    parser.add_argument("--seeds", default="", help="a range, instead of the one that the defect states")
    parser.add_argument("--all", action="store_true", help="go on after the first seed")
    parser.add_argument("--everything", action="store_true", help="seeds of all profiles")
    parser.add_argument("--certain", action="store_true", help="without faults that leave it open what was written")
    options: Any = parser.parse_args(arguments)
    defect = next(defect for defect in DEFECTS if defect.name.startswith(options.name))
    sys.meta_path.insert(0, Breaker(defect))
    first, _, last = (options.seeds or defect.seeds).partition("..")
    seeds = range(int(first), int(last))
    found = 0
    for tried, seed, violations in noticed(defect, seeds, everything=options.everything, certain=options.certain):
        if seed < 0:
            print(f"noticed by {found} of {tried} seeds")
            break
        found += 1
        print(f"seed {seed}, the {tried}. of its profile: {violations[0][:300]}", flush=True)
        if not options.all:
            break
    return int(not found)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation.notice", *sys.argv[1:]])
    sys.exit(main())
