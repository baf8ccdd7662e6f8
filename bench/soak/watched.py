"""A process of the command line that can be looked into: `python -m bench.soak.watched FILE worker …`.

Asked with SIGUSR1, it writes to FILE what only it can know: its tasks, and the objects in its memory.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiki.cli.main import aiki

__all__ = ["Census", "read_census"]

_KINDS_SHOWN = 40

COLLECT_SECONDS = 60.0


class Census:
    """Counts the tasks of the running loop, and, once a minute, the objects that are left after a collection.

    Connections leave cycles behind, which Python collects when it has enough of them; uncollected ones come and
    go by the thousand and would hide what really grows.
    """

    def __init__(self) -> None:
        self._counted_at = 0.0
        self._objects: Mapping[str, Any] = {}

    def take(self) -> Mapping[str, Any]:
        """Count what is there now.

        Raises:
            RuntimeError: no loop is running.
        """
        tasks = asyncio.all_tasks()
        now = time.monotonic()
        if not self._objects or now - self._counted_at > COLLECT_SECONDS:
            self._counted_at = now
            self._objects = _objects()
        return {
            "pid": os.getpid(),
            "tasks": len(tasks),
            "tasks by name": dict(Counter(map(_work_of, tasks)).most_common(_KINDS_SHOWN)),
            **self._objects,
        }


def _objects() -> Mapping[str, Any]:
    gc.collect()
    objects = gc.get_objects()
    kinds = Counter(type(one).__qualname__ for one in objects)
    return {"objects": len(objects), "kinds": dict(kinds.most_common(_KINDS_SHOWN))}


def _work_of(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "?")


def read_census(file: Path, *, pid: int) -> Mapping[str, Any] | None:
    """Read what process *pid* wrote last, if it wrote anything yet."""
    if not file.exists():
        return None
    found: Mapping[str, Any] = json.loads(file.read_text())
    return found if found["pid"] == pid else None


def _write_on_request(file: Path) -> None:
    census = Census()

    def write(*_: object) -> None:
        with suppress(RuntimeError):  # There is no running loop yet, or no more.
            _write(file, census.take())

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
