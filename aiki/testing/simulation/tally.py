"""What came of many simulations, as numbers that can be added up."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiki.testing.simulation.simulation import Report, simulate

__all__ = ["Tally", "tally_of"]


@dataclass(slots=True)
class Tally:
    """What came of some seeds."""

    scenarios: int = 0
    runs: int = 0
    attempts: int = 0
    steps: int = 0
    """How often something was asked of the world that could have gone wrong."""
    virtual_seconds: float = 0.0
    processor_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    """What did go wrong, by kind."""
    deeds: Counter[str] = field(default_factory=Counter)
    """What was done that is seldom needed, by name."""
    failed: dict[int, list[str]] = field(default_factory=dict)
    """What was violated, by seed."""

    def count(self, report: Report) -> None:
        """Add one simulation."""
        self.scenarios += 1
        self.runs += report.runs
        self.attempts += report.executions
        self.steps += report.steps
        self.virtual_seconds += report.seconds
        self.faults.update(fault.kind for fault in report.struck)
        self.deeds.update(report.deeds)
        if report.violations:
            self.failed[report.seed] = report.violations

    def add(self, other: "Tally") -> None:
        """Add what came of other seeds."""
        self.scenarios += other.scenarios
        self.runs += other.runs
        self.attempts += other.attempts
        self.steps += other.steps
        self.virtual_seconds += other.virtual_seconds
        self.processor_seconds += other.processor_seconds
        self.faults.update(other.faults)
        self.deeds.update(other.deeds)
        self.failed.update(other.failed)


def tally_of(seeds: Iterable[int]) -> Tally:
    """Simulate *seeds*, one after the other."""
    tally, began = Tally(), time.process_time()
    for seed in seeds:
        tally.count(simulate(seed))
    tally.processor_seconds = time.process_time() - began
    return tally
