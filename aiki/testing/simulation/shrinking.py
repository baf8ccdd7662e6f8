"""Shrinking: the fewest faults that still make a seed fail."""

from aiki.testing.simulation.simulation import Report, simulate

__all__ = ["shrink"]


def shrink(report: Report) -> Report:
    """Leave out faults, one after the other, as long as it fails; gives the shortest failure with its trace."""
    faults = list(report.faults)
    number = 0
    while number < len(faults):
        fewer = faults[:number] + faults[number + 1 :]
        if simulate(report.seed, faults=fewer).violations:
            faults = fewer
        else:
            number += 1
    return simulate(report.seed, faults=faults, traced=True)
