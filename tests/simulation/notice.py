"""Simulate with a defect: `python -m tests.simulation.notice NAME`. Says which seeds notice it.

The broken module takes the place of the real one in this process; nothing on the disk is changed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from tests.simulation.defects import DEFECTS, UNSEEN, Defect

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Break, simulate, and tell whether it was noticed."""
    options = _parser().parse_args(arguments)
    defect = next(defect for defect in (*DEFECTS, *UNSEEN) if defect.name.startswith(options.name))
    sys.meta_path.insert(0, Breaker(defect))
    first, _, last = (options.seeds or defect.seeds).partition("..")
    return _try(defect.profile, range(int(first), int(last)), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.notice", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="what the defect is called, or the beginning of that")
    parser.add_argument("--seeds", help="a range, instead of the one that the defect states")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="simulate no more than so many of them")
    parser.add_argument("--all", action="store_true", help="go on after the first seed that notices it")
    parser.add_argument("--certain", action="store_true", help="without faults that leave it open what was written")
    return parser


def _try(profile: str, seeds: range, options: argparse.Namespace) -> int:
    # Only now: what is imported from here on is broken.
    from aiki.testing.simulation.faults import UNCERTAIN
    from aiki.testing.simulation.profiles import profile_of
    from aiki.testing.simulation.simulation import simulate

    meant = [seed for seed in seeds if profile_of(seed).name == profile][: options.most]
    found = 0
    for number, seed in enumerate(meant, 1):
        violations = simulate(seed, without=UNCERTAIN if options.certain else ()).violations
        if violations:
            found += 1
            print(f"seed {seed}, {number}. of its profile: {' '.join(violations[0].split())[:300]}", flush=True)
            if not options.all:
                return 0
    print(f"noticed by {found} of {len(meant)} seeds")
    return int(not found)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation.notice", *sys.argv[1:]])
    sys.exit(main())
