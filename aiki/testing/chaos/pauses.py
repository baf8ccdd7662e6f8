"""Why nothing was achieved for a while: where the work of a partition stood meanwhile, and what was broken.

Pure, as the checker is: from a history to its longest pauses, each with what is known of it. Work
stands with somebody at any time. A run that is asked for waits for the partition's owner,
a queued one for a worker, a held one for its own tasks or for the broker to
confirm what it learnt. So the stage that most runs were in names who was waited for.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from operator import itemgetter
from typing import Any

from aiki.engine.ids import partition_of
from aiki.engine.status import FINAL, RunStatus
from aiki.testing.chaos.history import PARTITIONS, Accepted, Called, History, Struck
from aiki.testing.chaos.logs import Said

__all__ = ["PAUSES_MAX", "Pause", "Stage", "explained", "longest_pauses"]

SHORTEST_SECONDS = 3.0
PAUSES_MAX = 8
# Partitions that stood still together count once: their pauses have at least so much in common.
TOGETHER = 0.7
# What was healed so long before may have caused it: a process that is back has to connect and to catch up.
BEFORE_SECONDS = 3.0
_NOBODY = "nobody"


class Stage(StrEnum):
    """Whom a run waits for."""

    ASKED = "not stored yet"
    QUEUED = "stored, with no worker"
    HELD = "held, between two tasks"
    IN_TASK = "in a task"
    WAITING = "asleep or waiting"
    ENDED = "ended, and not heard of"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which nothing was achieved in one partition, or in several at once. In seconds of the chaos run."""

    began: float
    seconds: float
    partitions: Sequence[int]
    stages: Mapping[str, float]
    """How many runs of the first of the partitions were where, on average."""
    unwritten: float
    """The longest time in it without any write of a run of that partition: its owner did nothing that lasts."""
    untaken: float
    """The longest time in it in which no worker began to execute a run of that partition."""
    elsewhere: int
    """How many writes were made for other partitions meanwhile: if many, this one waited for its turn."""
    healthy: float
    """How much of it nothing was broken, nor had been just before."""
    owners: Sequence[str]
    """Who was given its events: at the beginning, and from when on."""
    broken: Sequence[str]
    """The faults of that time, with how much of it they lasted."""
    noticed: Sequence[str]
    """What processes said of servers that they could not reach."""

    def __str__(self) -> str:
        standing = ", ".join(f"{number:.0f} {stage}" for stage, number in self.stages.items() if number >= 0.5)
        return "\n".join(
            [
                f"{self.seconds:.1f} s from {self.began:.1f} in partition {', '.join(map(str, self.partitions))}",
                f"    runs: {standing or 'none was under way'}",
                f"    nothing stored for {self.unwritten:.1f} s, no run taken up for {self.untaken:.1f} s; "
                f"{self.elsewhere} writes for other partitions; nothing was broken for {self.healthy:.1f} s",
                f"    owner: {', '.join(self.owners)}",
                *(f"    {title}: {'; '.join(facts)}" for title, facts in self._circumstances() if facts),
            ]
        )

    def _circumstances(self) -> Sequence[tuple[str, Sequence[str]]]:
        return (("broken", self.broken), ("noticed", self.noticed))

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON's own types."""
        return asdict(self)


def longest_pauses(history: History) -> Sequence[Pause]:
    """Find the longest pauses of single partitions, the longest first, and tell what is known of each."""
    found = sorted(_of_partitions(history), key=lambda gap: gap[0] - gap[1])
    groups: list[list[_Gap]] = []
    for gap in found:
        group = next((group for group in groups if _are_together(group[0], gap)), None)
        if group is not None:
            group.append(gap)
        elif len(groups) < PAUSES_MAX:
            groups.append([gap])
    return [explained(history, *group[0][:2], list(dict.fromkeys(gap[2] for gap in group))) for group in groups]


_Gap = tuple[float, float, int]
"""From when to when nothing was achieved, in which partition."""


def _of_partitions(history: History) -> Iterator[_Gap]:
    moments: dict[int, list[float]] = defaultdict(list)
    for at, run_id in history.progress:
        moments[partition_of(run_id, PARTITIONS)].append(at)
    for partition, some in moments.items():
        yield from (
            (before, after, partition) for before, after in pairwise(some) if after - before >= SHORTEST_SECONDS
        )


def _are_together(one: _Gap, other: _Gap) -> bool:
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common >= TOGETHER * (one[1] - one[0])


def explained(history: History, began: float, ended: float, partitions: Sequence[int]) -> Pause:
    """Tell what is known of the time in which nothing was achieved, looking at the first of *partitions*."""
    partition = partitions[0]
    writes = [write.at for write in history.writes if partition_of(write.run_id, PARTITIONS) == partition]
    taken = [replay.at for replay in history.replays if partition_of(replay.run_id, PARTITIONS) == partition]
    return Pause(
        began=round(began - min(at for at, _ in history.progress), 1),
        seconds=round(ended - began, 1),
        partitions=partitions,
        stages=_stages(history, partition, began, ended),
        unwritten=_longest_gap(writes, began, ended),
        untaken=_longest_gap(taken, began, ended),
        elsewhere=sum(began < write.at < ended for write in history.writes)
        - sum(began < moment < ended for moment in writes),
        healthy=_healthy(history.faults, began, ended),
        owners=_owners(history.said, partition, began, ended),
        broken=[_overlap(fault, began, ended) for fault in history.faults if _touches(fault, began, ended)],
        noticed=_noticed(history.said, began, ended),
    )


def _longest_gap(moments: Sequence[float], began: float, ended: float) -> float:
    inside = sorted(moment for moment in moments if began < moment < ended)
    return round(max(after - before for before, after in pairwise([began, *inside, ended])), 1)


def _touches(fault: Struck, began: float, ended: float) -> bool:
    return fault.began < ended and fault.healed > began - BEFORE_SECONDS


def _healthy(faults: Sequence[Struck], began: float, ended: float) -> float:
    healthy, until = 0.0, began
    for fault in sorted(faults, key=lambda fault: fault.began):
        healthy += max(min(fault.began, ended) - until, 0.0)
        until = max(until, min(fault.healed + BEFORE_SECONDS, ended))
    return round(healthy + ended - until, 1)


def _overlap(fault: Struck, began: float, ended: float) -> str:
    first, last = max(fault.began, began), min(fault.healed, ended)
    when = f"{last - first:.1f} s from {first - began:+.1f}" if last > first else f"healed {fault.healed - began:+.1f}"
    return f"{fault.kind} of {fault.target} ({when})"


# -- where runs stand --------------------------------------------------------------------------------

_STAGES: Mapping[str, Stage] = {
    **{status.value: Stage.ENDED for status in FINAL},
    RunStatus.QUEUED.value: Stage.QUEUED,
    RunStatus.RUNNING.value: Stage.HELD,
}


def _stages(history: History, partition: int, began: float, ended: float) -> Mapping[str, float]:
    """Tell how many runs of *partition* stood where, averaged over the time."""
    totals: dict[Stage, float] = defaultdict(float)
    for signs in _signs(history, partition).values():
        signs.sort(key=itemgetter(0))  # Of one moment, the last that was added counts.
        for (at, stage), (until, _) in pairwise([*signs, (ended, Stage.OVER)]):
            totals[stage] += max(min(until, ended) - max(at, began), 0.0)
    totals.pop(Stage.OVER, None)
    most_first = sorted(totals.items(), key=itemgetter(1), reverse=True)
    return {stage.value: round(seconds / (ended - began), 1) for stage, seconds in most_first if seconds > 0}


def _signs(history: History, partition: int) -> Mapping[str, list[tuple[float, Stage]]]:
    """List for each run of *partition* from when on it stood where."""
    signs: dict[str, list[tuple[float, Stage]]] = defaultdict(list)
    awaited = {accepted.run_id for accepted in history.accepted}
    asked_for: Sequence[Called | Accepted] = (*history.calls, *history.accepted)
    for asked in asked_for:
        if asked.run_id is not None and asked.run_id not in signs:
            signs[asked.run_id].append((asked.at, Stage.ASKED))
    for write in history.writes:
        stage = _STAGES.get(write.status, Stage.WAITING)
        # Nobody waits to hear of a child but its parent, which has its own stages.
        is_over = stage is Stage.ENDED and write.run_id not in awaited
        signs[write.run_id].append((write.at, Stage.OVER if is_over else stage))
    for replay in history.replays:
        signs[replay.run_id].append((replay.at, Stage.HELD))
    for attempt in history.attempts:
        signs[attempt.run_id].append((attempt.at, Stage.IN_TASK))
    for at, run_id in history.progress:
        signs[run_id].append((at, Stage.HELD))
    for heard in history.heard:
        signs[heard.run_id].append((heard.at, Stage.OVER))
    return {run_id: some for run_id, some in signs.items() if partition_of(run_id, PARTITIONS) == partition}


# -- what processes said -----------------------------------------------------------------------------


def _owners(said: Sequence[Said], partition: int, began: float, ended: float) -> Sequence[str]:
    """Tell who was the last to be given events of *partition* before the pause, and who was in it."""
    given = [
        line for line in said if line.event == "consumer.served" and line.facts.get("queue") == f"partition {partition}"
    ]
    moments = [line.at for line in given]
    first, last = bisect_left(moments, began), bisect_right(moments, ended)
    before = given[first - 1].service if first else _NOBODY
    return [before, *(f"{line.service} from {line.at - began:+.1f}" for line in given[first:last])]


_SERVERS: Mapping[str, tuple[str, str]] = {
    "broker.lost": ("broker.connected", "the brokers"),
    "store.unavailable": ("store.back", "the stores"),
}
"""What is said when a server is lost, what when it is there again, and how it is called."""


def _noticed(said: Sequence[Said], began: float, ended: float) -> Sequence[str]:
    """Tell which process was without which servers, and for how much of the time, and what interrupted consumers."""
    without: dict[tuple[str, str], float] = defaultdict(float)
    for number, line in enumerate(said):
        if line.event in _SERVERS:
            back, servers = _SERVERS[line.event]
            until = _until_back(said, number, {back, "orchestrator.started", "worker.started"})
            without[line.service, servers] += max(min(until, ended) - max(line.at, began), 0.0)
    interrupted = Counter(
        (line.service, str(line.facts.get("error")))
        for line in said
        if began <= line.at <= ended and line.event in {"consumer.interrupted", "consumer.cannot_subscribe"}
    )
    return [
        *(f"{who} without {what} for {seconds:.1f} s" for (who, what), seconds in without.items() if seconds > 0),
        *(f"{who} {times} × {what!r}" for (who, what), times in interrupted.most_common(3)),
    ]


def _until_back(said: Sequence[Said], number: int, back: set[str]) -> float:
    """Tell when the process of that line says next that all is well. If it never does, it was ended: not since when."""
    service = said[number].service
    later = (line.at for line in said[number + 1 :] if line.service == service and line.event in back)
    return next(later, said[number].at)
