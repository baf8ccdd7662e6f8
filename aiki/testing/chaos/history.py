"""The history of a chaos run: what clients, tasks and faults did, each line written by whoever did it.

Every process appends to a file of its own. A line is written whole with one call of
the system, so it is there or not, however the process ends.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiki.engine.commands import DeadLetter
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.testing.chaos.logs import Said

__all__ = [
    "HISTORY_VARIABLE",
    "PARTITIONS",
    "Accepted",
    "Attempted",
    "Called",
    "Heard",
    "History",
    "Recorder",
    "Replayed",
    "Struck",
    "Written",
    "keep_writes",
    "load_history",
    "read_lines",
    "recorder_of_this_process",
]

HISTORY_VARIABLE = "CHAOS_HISTORY"
"""Names the folder, in the environment of all processes that take part."""

PARTITIONS = 8


class Recorder:
    """Appends what happened to one file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, **facts: Any) -> None:
        """Note that *what* happened, now."""
        line = json.dumps({"what": what, "at": time.time(), **facts}, separators=(",", ":"))
        os.write(self._descriptor, line.encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@cache
def recorder_of_this_process() -> Recorder:
    """Make the recorder of a process that takes part, when it is first asked for."""
    return Recorder(Path(os.environ[HISTORY_VARIABLE]) / f"process-{os.getpid()}-{time.time_ns()}.jsonl")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read what one recorder has written so far."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@dataclass(frozen=True, slots=True)
class Called:
    """A client asked for a run."""

    at: float
    job: int
    run_id: str | None = None
    """Known ahead where there is an idempotency key."""
    outcome: str = "unknown"
    """``accepted``; ``refused``: an error said that nothing was sent; else ``unknown``."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A client was told that a run is not going to be lost."""

    at: float
    run_id: str
    is_stored: bool
    """It was told that the run is stored, not only that the broker has it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A client was told how a run ended."""

    at: float
    run_id: str
    status: str
    result: Any


@dataclass(frozen=True, slots=True)
class Replayed:
    """A worker began to execute a run, knowing its journal up to ``seen``."""

    at: float
    process: int
    run_id: str
    seen: int


@dataclass(frozen=True, slots=True)
class Attempted:
    """A worker began an attempt of a task."""

    at: float
    process: int
    run_id: str
    task: str
    key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Written:
    """One write of a run, as MongoDB reported it."""

    run_id: str
    revision: int
    status: str
    epoch: int
    dispatch_id: str
    holder: str | None
    base_seq: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault: when it began, and when everything was as before."""

    kind: str
    began: float
    healed: float
    target: str = ""
    stuck: bool = False
    """No progress was seen within the bound after it was healed."""


@dataclass(slots=True)
class History:
    """Everything that is known of a chaos run when it is over."""

    calls: list[Called] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    replays: list[Replayed] = field(default_factory=list)
    attempts: list[Attempted] = field(default_factory=list)
    progress: list[tuple[float, str]] = field(default_factory=list)
    """When something was achieved, and for which run: tasks that ended, outcomes that were heard."""
    faults: list[Struck] = field(default_factory=list)
    writes: list[Written] = field(default_factory=list)
    runs: dict[str, RunState] = field(default_factory=dict)
    journals: dict[str, Sequence[JournalEntry]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    """What is still there though everything is done, as whoever looked for it says."""
    said: Sequence[Said] = ()
    """The events in the logs of all processes, in the order of time."""

    @property
    def wipes(self) -> list[Struck]:
        """The times when the broker lost its data."""
        return [fault for fault in self.faults if fault.kind == "broker-wipe"]


def keep_writes(folder: Path, writes: Sequence[Written]) -> None:
    """Keep what MongoDB reported beside the files of the recorders, for whoever looks for a cause."""
    lines = (json.dumps(asdict(write)) for write in writes)
    (folder / "writes.json").write_text("\n".join(lines), encoding="utf-8")


def load_history(folder: Path) -> History:
    """Read the files of all recorders in *folder*."""
    history = History()
    for path in sorted(folder.glob("*.jsonl")):
        _read_one(path, history)
    history.progress.sort()
    history.faults.sort(key=lambda fault: fault.began)
    return history


def _read_one(path: Path, history: History) -> None:
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_lines(path):
        lines[line.pop("what")].append(line)
    outcomes = {line["job"]: line["outcome"] for line in lines["answered"]}
    history.calls += [
        Called(line["at"], line["job"], line.get("run_id"), outcomes.get(line["job"], "unknown"))
        for line in lines["called"]
    ]
    history.accepted += [Accepted(**line) for line in lines["accepted"]]
    history.heard += [Heard(**line) for line in lines["heard"]]
    history.replays += [Replayed(**line) for line in lines["replayed"]]
    history.attempts += [Attempted(**line) for line in lines["attempted"]]
    history.progress += [(line["at"], line["run_id"]) for line in (*lines["done"], *lines["heard"])]
    history.faults += [Struck(**{name: line[name] for name in line if name != "at"}) for line in lines["struck"]]
