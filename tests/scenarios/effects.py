"""The outside world of the scenarios: a folder where tasks leave marks and meet the test.

Tasks run in other processes, which are killed and frozen. What they did to the
world has to be seen from outside, so every effect is one appended line, and a
test holds a task by putting up a barrier: a file that the task waits for to go.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Effect", "World", "world_of_this_process"]

_VARIABLE = "AIKI_TEST_WORLD"


@dataclass(frozen=True, slots=True)
class Effect:
    """One mark: a task said something."""

    at: float
    """Seconds since the epoch."""
    process_id: int
    run_id: str
    name: str
    attempt: int
    key: str


class World:
    """A folder that the test and all processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "effects.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this world."""
        return {_VARIABLE: str(self.folder)}

    def leave(self, name: str, *, run_id: str, attempt: int = 1, key: str = "") -> None:
        """Leave a mark. Appends do not mix; whoever reads at the same time may see the beginning of one."""
        mark = {
            "at": time.time(),
            "process_id": os.getpid(),
            "run_id": run_id,
            "name": name,
            "attempt": attempt,
            "key": key,
        }
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, (json.dumps(mark) + "\n").encode())
        finally:
            os.close(descriptor)

    def effects(self, name: str | None = None, *, run_id: str | None = None) -> list[Effect]:
        """Read the marks, in order; one that is just being written is not there yet."""
        if not self._log.exists():
            return []
        whole, _, _ = self._log.read_text().rpartition("\n")
        found = [Effect(**json.loads(line)) for line in whole.splitlines()]
        return [
            effect
            for effect in found
            if (name is None or effect.name == name) and (run_id is None or effect.run_id == run_id)
        ]

    def hold(self, name: str) -> None:
        """Put up a barrier: whoever passes *name* waits in front of it."""
        (self.folder / f"hold-{name}").touch()

    def release(self, name: str) -> None:
        """Take the barrier away."""
        (self.folder / f"hold-{name}").unlink(missing_ok=True)

    def is_held(self, name: str) -> bool:
        """Whether there is a barrier."""
        return (self.folder / f"hold-{name}").exists()

    def set_flag(self, name: str, text: str = "") -> None:
        """Say something to the tasks."""
        (self.folder / f"flag-{name}").write_text(text)

    def clear_flag(self, name: str) -> None:
        """Take it back."""
        (self.folder / f"flag-{name}").unlink(missing_ok=True)

    def flag(self, name: str) -> str | None:
        """What was said, if it was."""
        path = self.folder / f"flag-{name}"
        return path.read_text() if path.exists() else None


def world_of_this_process() -> World:
    """Find the world that the test gave to this process."""
    return World(Path(os.environ[_VARIABLE]))
