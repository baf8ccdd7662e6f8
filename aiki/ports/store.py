"""The store: where runs rest between events. Only orchestrators know it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal, Protocol

from aiki.engine.changing import replace
from aiki.engine.commands import DeadLetter
from aiki.engine.journal import JournalEntry
from aiki.engine.queries import DeadLetterPage, RunFilter, RunPage, StoredDeadLetter
from aiki.engine.state import RunState

__all__ = ["Presence", "RunChange", "Store"]

_written = attrgetter(*[field.name for field in fields(RunState) if field.name != "last_seq"])


@dataclass(frozen=True, slots=True)
class RunChange:
    """What a batch of events made of one run.

    *before* is what was loaded (``None``: the run is new), *after* what it is now, *journal* what was learnt.
    The run is written only if *after* differs from *before* in more than ``last_seq``; then
    ``after.revision == before.revision + 1`` (1 for a new run).
    """

    before: RunState | None
    after: RunState
    journal: tuple[JournalEntry, ...] = ()

    @classmethod
    def between(cls, before: RunState | None, after: RunState, journal: tuple[JournalEntry, ...] = ()) -> "RunChange":
        """Make the change from *before* to *after*, with the revision that it has to have."""
        if before is None:
            return cls(None, replace(after, revision=1), journal)
        if after is before or _written(after) == _written(before):
            return cls(before, after, journal)
        return cls(before, replace(after, revision=before.revision + 1), journal)

    @property
    def writes_run(self) -> bool:
        """Whether the run itself is written, and not its journal alone."""
        return self.before is None or self.after.revision != self.before.revision


@dataclass(frozen=True, slots=True)
class Presence:
    """A process says that it is there."""

    id: str
    kind: Literal["orchestrator", "worker"]
    facts: Mapping[str, Any]
    """JSON's own types: host, process id, queues, partitions…"""
    expires_at: datetime


class Store(Protocol):
    """Where runs rest between events.

    Every write survives a crash of the store and the loss of a minority of its members
    from the moment it returns. Every read sees only what would survive the same.
    Methods raise ``StoreUnavailableError`` when the store cannot be reached or refuses;
    each may be called again then, without harm.
    """

    async def start(self) -> None:
        """Connect, and make collections and indexes that are missing."""
        ...

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        ...

    async def partitions(self, wanted: int) -> int:
        """Tell the number of partitions that this store was set up with; the first call decides it."""
        ...

    async def load(self, run_ids: Collection[str]) -> Mapping[str, RunState]:
        """Read runs, fresh and majority-committed; those that do not exist are missing from the answer.

        ``last_seq`` is derived from the journal: the highest ``seq`` of an entry that counts (of this
        incarnation, and with ``seq <= base_seq`` or of the run's current epoch); 0 without entries. A commit
        that was cut short may have left gaps above ``base_seq``: what counts ends before the first of them.
        """
        ...

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes*, each run on its own, and tell whose was stale (by run id).

        All journal entries are safe before the first run is written (rule 6). A run is written only
        if the stored revision is still ``before.revision`` (or, for a new one, there is none yet).
        An entry that is there already counts as kept if it has the same epoch and the same content;
        one of an older epoch above ``before.base_seq`` is replaced, if it still is what was read;
        anything else makes the change stale.
        A stale change may have left entries behind: readers ignore them. Changes may be given again without harm.

        Raises:
            RunTooLargeError: a run fits no document; it names the first, and nothing at all was kept.
        """
        ...

    async def journal(self, run: RunState, *, after_seq: int = 0, limit: int | None = None) -> Sequence[JournalEntry]:
        """Read the entries of *run* that count, in order."""
        ...

    async def journals(self, runs: Collection[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        """Read the whole journals of several runs with one query, by run id; a run without entries has an empty one."""
        ...

    async def due(self, partitions: Collection[int], *, before: datetime, limit: int) -> Sequence[RunState]:
        """Find runs of *partitions* with ``due_at < before``, the earliest first. ``last_seq`` may be left 0."""
        ...

    async def unfinished(self, partitions: Collection[int], *, after: str | None, limit: int) -> Sequence[RunState]:
        """Page through all runs of *partitions* that are not final, by run id: what a rebuild goes through."""
        ...

    async def find(self, wanted: RunFilter, *, limit: int, cursor: str | None) -> RunPage:
        """List runs, newest first. ``last_seq`` may be left 0.

        Raises:
            StoreError: the cursor is none of ours.
        """
        ...

    async def count(self) -> Mapping[str, Mapping[str, int]]:
        """Count runs: workflow → status → number."""
        ...

    async def expire(self, *, now: datetime, limit: int) -> int:
        """Remove up to *limit* finished runs with ``expires_at < now``.

        They are marked first, then their journals go, then they themselves (rule 16).
        """
        ...

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Keep *letters*; one whose id is known counts once more and is parked again.

        Except where its ``at`` is not later than what is known: then it is the same parking, told again.
        """
        ...

    async def dead_letter(self, letter_id: str) -> StoredDeadLetter | None:
        """Read one dead letter."""
        ...

    async def dead_letters(self, *, limit: int, cursor: str | None, include_done: bool) -> DeadLetterPage:
        """List dead letters, newest first."""
        ...

    async def count_dead_letters(self, *, limit: int) -> int:
        """Count the dead letters that nobody has done anything about, up to *limit*."""
        ...

    async def handle_dead_letter(
        self, letter_id: str, state: Literal["redriven", "discarded"], *, at: datetime
    ) -> StoredDeadLetter | None:
        """Note what was done about a dead letter; tells what it is now."""
        ...

    async def announce(self, presence: Presence) -> None:
        """Keep or renew *presence*; one that has expired already (``expires_at`` in the past) is removed."""
        ...

    async def present(self, kind: Literal["orchestrator", "worker"], *, now: datetime) -> Sequence[Presence]:
        """Tell who is there: every presence of *kind* that has not expired."""
        ...
