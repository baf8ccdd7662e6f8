"""What a chaos run amounts to: a table for people, and the same as JSON."""

import statistics
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from aiki.engine.ids import partition_of
from aiki.testing.chaos.checker import Violation, executed_again, not_promised
from aiki.testing.chaos.history import PARTITIONS, History, Struck
from aiki.testing.chaos.pauses import PAUSES_MAX, Pause, longest_pauses

__all__ = ["KindReport", "Report", "added_up", "longest_pause", "report_of", "table"]

# What a fault does may show only when whoever is hit notices.
AFTERMATH_SECONDS = 1.0

_THE_WORST = ("lost", "duplicated", "wrong")


@dataclass(frozen=True, slots=True)
class KindReport:
    """What one kind of fault did. Pauses are in seconds: the longest time in which nothing was achieved."""

    kind: str
    pauses: Sequence[float]
    """The longest pause that touched each of the faults, in order of length."""
    longest_alone: float | None
    """The longest while no other fault was there; ``None``: there always was one."""
    partition_longest: float
    """The longest in which nothing was achieved in one of the partitions."""
    partition_alone: float | None = None
    """The same, while no other fault was there."""

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.pauses)


@dataclass(frozen=True, slots=True)
class Report:
    """What a chaos run amounts to."""

    seed: str
    seconds: float
    faults: int
    kinds: Sequence[KindReport]
    runs: int
    tasks: int
    executed_again: int
    not_promised: int
    violations: Mapping[str, int]
    pauses: Sequence[Pause] = ()
    """The longest pauses of single partitions, the longest first."""

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON's own types."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Report":
        """Read what ``as_json`` has written."""
        kinds = [KindReport(**kind) for kind in content["kinds"]]
        pauses = [Pause(**pause) for pause in content.get("pauses", ())]
        return cls(**{**content, "kinds": kinds, "pauses": pauses})


def report_of(history: History, violations: Sequence[Violation], *, seed: str) -> Report:
    """Sum up *history*."""
    by_kind: dict[str, list[Struck]] = defaultdict(list)
    for fault in history.faults:
        by_kind[fault.kind].append(fault)
    moments = [at for at, _ in history.progress]
    partitions = _by_partition(history)
    began = min(moments, default=0.0)
    return Report(
        seed=seed,
        seconds=round(max(moments, default=0.0) - began, 1),
        faults=len(history.faults),
        kinds=[_of_kind(kind, faults, moments, partitions, history.faults) for kind, faults in sorted(by_kind.items())],
        runs=len(history.runs),
        tasks=len(history.attempts),
        executed_again=executed_again(history),
        not_promised=len(not_promised(history)),
        violations=dict(Counter(violation.kind for violation in violations)),
        pauses=longest_pauses(history),
    )


def longest_pause(moments: Sequence[float], fault: Struck) -> float:
    """Tell the longest time between two of *moments* that touches *fault* or its aftermath."""
    first = max(bisect_left(moments, fault.began) - 1, 0)
    last = bisect_right(moments, fault.healed + AFTERMATH_SECONDS) + 1
    some = moments[first:last]
    return max((after - before for before, after in pairwise(some)), default=0.0)


def added_up(reports: Sequence[Report]) -> Report:
    """Make one report of several, as if they were of one run."""
    by_kind: dict[str, list[KindReport]] = defaultdict(list)
    violations: Counter[str] = Counter()
    for report in reports:
        violations.update(report.violations)
        for kind in report.kinds:
            by_kind[kind.kind].append(kind)
    return Report(
        seed=", ".join(report.seed for report in reports),
        seconds=round(sum(report.seconds for report in reports), 1),
        faults=sum(report.faults for report in reports),
        kinds=[_added_up(kind, parts) for kind, parts in sorted(by_kind.items())],
        runs=sum(report.runs for report in reports),
        tasks=sum(report.tasks for report in reports),
        executed_again=sum(report.executed_again for report in reports),
        not_promised=sum(report.not_promised for report in reports),
        violations=dict(violations),
        pauses=sorted((pause for report in reports for pause in report.pauses), key=lambda pause: -pause.seconds)[
            :PAUSES_MAX
        ],
    )


def _added_up(kind: str, parts: Sequence[KindReport]) -> KindReport:
    alone = [part.longest_alone for part in parts if part.longest_alone is not None]
    partition_alone = [part.partition_alone for part in parts if part.partition_alone is not None]
    return KindReport(
        kind,
        sorted(pause for part in parts for pause in part.pauses),
        max(alone, default=None),
        max(part.partition_longest for part in parts),
        max(partition_alone, default=None),
    )


def table(report: Report) -> str:
    """Write *report* for people."""
    lines = [
        f"{'fault':<26} {'count':>5} {'longest pause':>14} {'median':>8} {'alone':>8} {'one partition':>14} "
        f"{'alone':>8}",
        *(
            f"{kind.kind:<26} {kind.count:>5} {kind.pauses[-1]:>12.2f} s {statistics.median(kind.pauses):>6.2f} s "
            f"{_seconds(kind.longest_alone):>8} {kind.partition_longest:>12.2f} s {_seconds(kind.partition_alone):>8}"
            for kind in report.kinds
        ),
        "",
        f"seed {report.seed}: {report.faults} faults of {len(report.kinds)} kinds in {report.seconds:.0f} s, "
        f"{report.runs} runs, {report.tasks} attempts of tasks",
        " ".join(f"{kind}={report.violations.get(kind, 0)}" for kind in _THE_WORST)
        + f" other={sum(number for kind, number in report.violations.items() if kind not in _THE_WORST)}",
        f"{report.executed_again} attempts were executed again, unrecorded the first time; "
        f"{report.not_promised} runs went with a broker before they were stored",
        *(["", "the longest pauses of single partitions:", *map(str, report.pauses)] if report.pauses else ()),
    ]
    return "\n".join(lines)


def _seconds(pause: float | None) -> str:
    return "" if pause is None else f"{pause:.2f} s"


def _of_kind(
    kind: str,
    faults: Sequence[Struck],
    moments: Sequence[float],
    partitions: Sequence[Sequence[float]],
    every: Sequence[Struck],
) -> KindReport:
    pauses = [longest_pause(moments, fault) for fault in faults]
    of_partitions = [max((longest_pause(some, fault) for some in partitions), default=0.0) for fault in faults]
    alone = [number for number, fault in enumerate(faults) if _is_alone(fault, every)]
    return KindReport(
        kind,
        sorted(round(pause, 3) for pause in pauses),
        round(max(pauses[number] for number in alone), 3) if alone else None,
        round(max(of_partitions, default=0.0), 3),
        round(max(of_partitions[number] for number in alone), 3) if alone else None,
    )


def _is_alone(fault: Struck, every: Sequence[Struck]) -> bool:
    """Whether no other fault was there while *fault* was, or was healed so late that it may still be felt."""
    return not any(
        other is not fault
        and other.began <= fault.healed + AFTERMATH_SECONDS
        and fault.began <= other.healed + AFTERMATH_SECONDS
        for other in every
    )


def _by_partition(history: History) -> Sequence[Sequence[float]]:
    moments: list[list[float]] = [[] for _ in range(PARTITIONS)]
    for at, run_id in history.progress:
        moments[partition_of(run_id, PARTITIONS)].append(at)
    return moments
