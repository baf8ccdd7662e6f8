"""A record of the seeds that were simulated: what a long run has done so far, in one small file.

It is written anew after every block of seeds, and replaces the old one in one step: a
process that is killed at any moment leaves the record as of its last block. What had
been simulated since is simulated again, and nothing is counted twice.

Every revision of the code has its own part of the record. A revision is what the simulated processes
import of Aiki: another page of the documentation or another adapter changes nothing. How
it was simulated may change from one day to the next; the record counts how much was done by which
version of the simulation, since a seed that fails can be seen again with that one only.

What one revision has shown says little about another. But hardly anything changes between two of
them, so a long search is worth more if it goes on with seeds that nobody has tried.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiki
from aiki.testing.simulation.tally import Tally

__all__ = ["Record", "RecordInUseError", "missing", "opened", "revisions", "simulated_sources", "summary"]

Spans = list[list[int]]
"""Ranges of seeds: first, and the one after the last. In order, and with gaps between them."""

PACKAGE = Path(aiki.__file__).parent


class RecordInUseError(Exception):
    """Somebody else writes this record."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process is simulating for {path}; wait for it, or end it")


@dataclass(slots=True)
class Part:
    """What was done for one revision."""

    done: Spans = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    simulations: Counter[str] = field(default_factory=Counter)
    """How many scenarios each version of the simulation has done."""

    def add(self, blocks: Iterable[range]) -> None:
        """Note that *blocks* are done; ranges that touch become one."""
        self.done = _joined([*self.done, *([block.start, block.stop] for block in blocks)])

    @classmethod
    def load(cls, facts: dict[str, Any]) -> "Part":
        """Read what ``dump`` has made."""
        counted = {name: Counter(facts["tally"].get(name, {})) for name in ("faults", "deeds")}
        tally = {**facts["tally"], **counted}
        tally["failed"] = {int(seed): violations for seed, violations in tally["failed"].items()}
        return cls(facts["done"], Tally(**tally), Counter(facts["simulations"]))

    @property
    def passed(self) -> Spans:
        """What was done, and violated nothing."""
        failed = sorted(self.tally.failed)
        return [
            [part.start, part.stop]
            for first, stop in self.done
            for part in missing(range(first, stop), [[seed, seed + 1] for seed in failed])
        ]

    def dump(self) -> dict[str, Any]:
        """Make JSON's own types of it."""
        tally = {name: getattr(self.tally, name) for name in Tally.__dataclass_fields__}
        return {"done": self.done, "tally": tally, "simulations": self.simulations}


class Record:
    """The file, and what is in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: dict[str, Part] = {}
        if path.exists():
            kept = json.loads(path.read_text())["revisions"]
            self.parts = {revision: Part.load(facts) for revision, facts in kept.items()}

    def part(self, revision: str) -> Part:
        """Give the part of one revision."""
        return self.parts.setdefault(revision, Part())

    @property
    def passed(self) -> Spans:
        """Which seeds violated nothing in one revision or another."""
        return _joined(span for part in self.parts.values() for span in part.passed)

    def left(self, seeds: range, revision: str, *, fresh: bool) -> Sequence[range]:
        """Tell which of *seeds* are to be done; *fresh*: which violated something, or were done by no revision yet."""
        return list(missing(seeds, self.passed if fresh else self.part(revision).done))

    def keep(self, block: range, tally: Tally, *, revision: str, simulation: str) -> None:
        """Keep what came of *block*; once this returns, nobody has to simulate it again."""
        part = self.part(revision)
        part.add([block])
        for seed in part.tally.failed.keys() & set(block):
            del part.tally.failed[seed]  # What simulates was mended since, and what it says now counts.
        part.tally.add(tally)
        part.simulations[simulation] += tally.scenarios
        self._write()

    def _write(self) -> None:
        facts = {"revisions": {revision: part.dump() for revision, part in self.parts.items()}}
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("w") as file:
            json.dump(facts, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


@contextmanager
def opened(path: Path) -> Iterator[Record]:
    """Have a record for oneself.

    Raises:
        RecordInUseError: somebody else has it.
    """
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            # The kind of lock that a forked process does not share: it ends with this process.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordInUseError(path) from None
        yield Record(path)


def missing(seeds: range, done: Sequence[Sequence[int]]) -> Iterator[range]:
    """Tell which ranges of *seeds* are not among those that are done."""
    start = seeds.start
    for first, stop in done:
        if start < min(first, seeds.stop):
            yield range(start, min(first, seeds.stop))
        start = max(start, stop)
    if start < seeds.stop:
        yield range(start, seeds.stop)


# Only a process that has done nothing else knows what a simulation takes.
_LOADED = """
import sys, aiki.testing.simulation.simulation
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("aiki", "broker_topology"):
        print(module.__file__)
"""


def simulated_sources() -> Sequence[Path]:
    """Find the files that simulated processes, and what simulates them, import of Aiki."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", _LOADED], env=env, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def revisions() -> tuple[str, str]:
    """Tell the revision of Aiki's code, and that of the simulation."""
    testing, sources = PACKAGE / "testing", simulated_sources()
    return (
        _digest([path for path in sources if not path.is_relative_to(testing)]),
        _digest([path for path in sources if path.is_relative_to(testing / "simulation")]),
    )


def summary(record: Record) -> str:
    """Say what is in a record, as tables in Markdown."""
    lines = [
        "| Code | Seeds | Scenarios | Runs | Attempts of tasks | Steps that could fail | Faults | Virtual days "
        "| Processor hours | Violations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    total = Tally()
    for revision, part in record.parts.items():
        total.add(part.tally)
        lines.append(_row(revision, part.done, part.tally))
    lines.append(_row("all", _joined(span for part in record.parts.values() for span in part.done), total))
    passed = record.passed
    lines += ["", f"Seeds that violated nothing, each counted once: **{_size(passed):,}** ({_named(passed)})."]
    for revision, part in record.parts.items():
        lines += ["", f"Faults of {revision}, by kind:", "", "| Kind | Number |", "|---|---|"]
        lines += [f"| {kind} | {number:,} |" for kind, number in part.tally.faults.most_common()]
        simulations = ", ".join(f"{number:,} by {name}" for name, number in part.simulations.items())
        lines += ["", f"Scenarios by version of the simulation: {simulations}."]
        lines += [f"* seed {seed}: {'; '.join(what)}" for seed, what in sorted(part.tally.failed.items())]
    return "\n".join(lines)


def _row(name: str, done: Spans, tally: Tally) -> str:
    numbers = (tally.scenarios, tally.runs, tally.attempts, tally.steps, tally.faults.total())
    facts = [
        name,
        _named(done),
        *(f"{number:,}" for number in numbers),
        f"{tally.virtual_seconds / 86400:,.1f}",
        f"{tally.processor_seconds / 3600:,.2f}",
        f"{len(tally.failed):,}",
    ]
    return f"| {' | '.join(facts)} |"


def _joined(spans: Iterable[list[int]]) -> Spans:
    """Put ranges in order; those that touch become one."""
    joined: Spans = []
    for first, stop in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([first, stop])
    return joined


def _size(spans: Spans) -> int:
    return sum(stop - first for first, stop in spans)


def _named(spans: Spans) -> str:
    return ", ".join(f"{first:,}..{stop:,}" for first, stop in spans)


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(PACKAGE.parent)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
