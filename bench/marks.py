"""Marks: which process began a step, and when, in a file that survives the process."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Mark", "Marks"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Process *pid* began a step at *at*, seconds since 1970."""

    pid: int
    at: float


class Marks:
    """A file of marks, one a line."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def of_this_process(cls) -> Self:
        """Find the file where the environment names it."""
        return cls(Path(os.environ["BENCH_MARKS"]))

    def leave(self) -> None:
        """Add a mark of this process."""
        with self.file.open("a") as file:
            file.write(f"{os.getpid()} {time.time():.6f}\n")

    def read(self) -> list[Mark]:
        """Read all marks, oldest first; a line that is being written is left for the next time."""
        lines = self.file.read_text().split("\n")[:-1] if self.file.exists() else []
        return [Mark(int(pid), float(at)) for pid, at in (line.split() for line in lines)]

    def clear(self) -> None:
        """Forget all marks."""
        self.file.write_text("")
