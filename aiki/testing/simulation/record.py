"""A record of the seeds that were simulated: what a long run has done so far, in one small file.

It is written anew after every block of seeds, and replaces the old one in one step: a
process that is killed at any moment leaves the record as of its last block. What had
been simulated since is simulated again, and nothing is counted twice.

Every revision of the code has its own part of the record, for what one has shown says nothing
about another. A revision is what the sources of Aiki are, without its tools for tests and
without anything around it: a changed page of the documentation changes nothing. How
it was simulated may change from one day to the next; the record counts how much was done by which
version of the simulation, since a seed that fails can be seen again with that one only.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiki
from aiki.testing.simulation.tally import Tally

__all__ = ["Record", "RecordInUseError", "missing", "opened", "revisions", "summary"]

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
        spans = sorted([*self.done, *([block.start, block.stop] for block in blocks)])
        self.done = []
        for first, stop in spans:
            if self.done and first <= self.done[-1][1]:
                self.done[-1][1] = max(self.done[-1][1], stop)
            else:
                self.done.append([first, stop])

    @classmethod
    def load(cls, facts: dict[str, Any]) -> "Part":
        """Read what ``dump`` has made."""
        tally = {**facts["tally"], "faults": Counter(facts["tally"]["faults"])}
        tally["failed"] = {int(seed): violations for seed, violations in tally["failed"].items()}
        return cls(facts["done"], Tally(**tally), Counter(facts["simulations"]))

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

    def keep(self, block: range, tally: Tally, *, revision: str, simulation: str) -> None:
        """Keep what came of *block*; once this returns, nobody has to simulate it again."""
        part = self.part(revision)
        part.add([block])
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


def revisions() -> tuple[str, str]:
    """Tell the revision of Aiki's code, and that of the simulation."""
    testing = PACKAGE / "testing"
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "broker_topology").rglob("*.py")]
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
    for revision, part in record.parts.items():
        tally = part.tally
        facts = [
            revision,
            ", ".join(f"{first:,}..{stop:,}" for first, stop in part.done),
            *(f"{number:,}" for number in (tally.scenarios, tally.runs, tally.attempts, tally.steps)),
            f"{tally.faults.total():,}",
            f"{tally.virtual_seconds / 86400:,.1f}",
            f"{tally.processor_seconds / 3600:,.2f}",
            f"{len(tally.failed):,}",
        ]
        lines.append(f"| {' | '.join(facts)} |")
    for revision, part in record.parts.items():
        lines += ["", f"Faults of {revision}, by kind:", "", "| Kind | Number |", "|---|---|"]
        lines += [f"| {kind} | {number:,} |" for kind, number in part.tally.faults.most_common()]
        simulations = ", ".join(f"{number:,} by {name}" for name, number in part.simulations.items())
        lines += ["", f"Scenarios by version of the simulation: {simulations}."]
        lines += [f"* seed {seed}: {'; '.join(what)}" for seed, what in sorted(part.tally.failed.items())]
    return "\n".join(lines)


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(PACKAGE.parent)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
