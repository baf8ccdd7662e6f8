"""A process of the command line that can be looked into: `python -m bench.soak.watched FILE worker …`.

Asked with SIGUSR1, it writes to FILE what only it can know: its tasks, and the objects in its memory.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiki.cli.main import aiki

__all__ = ["census", "read_census"]

_TYPES_SHOWN = 40


def census() -> Mapping[str, Any]:
    """Count the tasks of the running loop, and the objects that the garbage collector looks after."""
    objects = gc.get_objects()
    kinds = Counter(type(one).__qualname__ for one in objects)
    tasks = asyncio.all_tasks()
    return {
        "pid": os.getpid(),
        "tasks": len(tasks),
        "objects": len(objects),
        "kinds": dict(kinds.most_common(_TYPES_SHOWN)),
        "tasks by name": dict(Counter(map(_work_of, tasks)).most_common(_TYPES_SHOWN)),
    }


def _work_of(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "?")


def read_census(file: Path, *, pid: int) -> Mapping[str, Any] | None:
    """Read what process *pid* wrote last, if it wrote anything yet."""
    if not file.exists():
        return None
    found: Mapping[str, Any] = json.loads(file.read_text())
    return found if found["pid"] == pid else None


def _write_on_request(file: Path) -> None:
    def write(*_: object) -> None:
        with suppress(RuntimeError):  # There is no running loop yet, or no more.
            _write(file, census())

    signal.signal(signal.SIGUSR1, write)
    # From now on it may be asked; before, the signal would have ended the process.
    _write(file, {"pid": os.getpid()})


def _write(file: Path, found: Mapping[str, Any]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(file)


if __name__ == "__main__":
    _write_on_request(Path(sys.argv[1]))
    aiki(sys.argv[2:], prog_name="aiki")
