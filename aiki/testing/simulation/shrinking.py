"""Shrinking: the fewest faults that still make a seed fail."""

from collections.abc import Callable, Sequence

from aiki.testing.simulation.faults import Fault
from aiki.testing.simulation.simulation import Report, simulate

__all__ = ["fewest", "shrink"]


def shrink(report: Report) -> Report:
    """Give the shortest failure of a seed, with its trace, which ends soon after something was wrong."""
    faults = fewest(report.faults, lambda some: bool(simulate(report.seed, faults=some).violations))
    return simulate(report.seed, faults=faults, traced=True)


def fewest(faults: Sequence[Fault], fails: Callable[[list[Fault]], bool]) -> list[Fault]:
    """Leave out faults, one after the other, as long as what is left *fails*."""
    left = list(faults)
    number = 0
    while number < len(left):
        fewer = left[:number] + left[number + 1 :]
        if fails(fewer):
            left = fewer
        else:
            number += 1
    return left
