"""The runs that a partition's owner remembers, so that the way of an event goes without a read.

What is here may be out of date whenever somebody else owned the partition in between:
it is dropped then, and nothing is refused because of it alone (rule 5).
"""

from collections import OrderedDict
from collections.abc import Iterable

from aiki.engine.state import RunState

__all__ = ["RunCache"]

# What a run takes besides its payloads: the object, its strings, its place in the dictionary.
_BYTES_PER_RUN = 3_000


class RunCache:
    """Runs by id, the least recently used ones forgotten when they take more than *bytes_max*."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._runs: OrderedDict[str, RunState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: str) -> RunState | None:
        """Find a run, if it is remembered."""
        run = self._runs.get(run_id)
        if run is not None:
            self._runs.move_to_end(run_id)
        return run

    def put(self, run: RunState) -> None:
        """Remember a run as it is stored now; a final one is forgotten, nothing more is to be expected of it."""
        self.drop((run.run_id,))
        if run.status.is_final:
            return
        self._runs[run.run_id] = run
        self._bytes += _size(run)
        while self._bytes > self._bytes_max:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= _size(oldest)

    def drop(self, run_ids: Iterable[str]) -> None:
        """Forget runs."""
        for run_id in run_ids:
            run = self._runs.pop(run_id, None)
            if run is not None:
                self._bytes -= _size(run)

    def clear(self) -> None:
        """Forget everything: somebody else may have moved these runs."""
        self._runs.clear()
        self._bytes = 0


def _size(run: RunState) -> int:
    return _BYTES_PER_RUN + len(run.input) + sum(len(item.payload or "") for item in run.inbox)
