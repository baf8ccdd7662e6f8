"""What the processes of a chaos run say of themselves: the lines of their logs that are events."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Said", "read_logs"]


@dataclass(frozen=True, slots=True)
class Said:
    """One event in the log of a process."""

    at: float
    service: str
    event: str
    facts: Mapping[str, Any]


def read_logs(logs: Mapping[str, Path]) -> Sequence[Said]:
    """Read the logs, each by the name of its service, into one sequence in the order of time."""
    said = [line for service, path in logs.items() if path.exists() for line in _events_of(service, path)]
    return sorted(said, key=lambda line: line.at)


def _events_of(service: str, path: Path) -> Iterator[Said]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # People are told things as well, and a line may be cut short by a kill.
            if not (line.startswith("{") and line.endswith("}\n")):
                continue
            facts = json.loads(line)
            yield Said(datetime.fromisoformat(facts.pop("at")).timestamp(), service, facts.pop("event"), facts)
