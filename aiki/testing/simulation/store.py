"""A simulated store: SQLite in memory without a thread, at the other end of a network.

Commits go wrong as those of MongoDB do, which writes many documents and has no transaction
over them: what was learnt may be there and the run that learnt it not yet, for some
of the runs of a commit and not for others, and whoever asked is told that it failed.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

from aiki.adapters.store.embedded import SqliteStore
from aiki.adapters.store.embedded.database import Database
from aiki.adapters.store.embedded.schema import prepare
from aiki.engine.changing import replace
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.errors import StoreUnavailableError
from aiki.ports.store import Presence, RunChange
from aiki.testing.simulation.network import Link, LinkLostError

__all__ = ["InlineStore", "StoreLink", "done_at_once"]

T = TypeVar("T")


@lru_cache(maxsize=1)
def _empty() -> bytes:
    """Give a database with all its tables and nothing in them: a copy is made sooner than the tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection)
        return connection.serialize()


class _InlineDatabase(Database):
    """A database that answers before anybody waits."""

    async def open(self) -> None:
        if self._connection is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.deserialize(_empty())

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise StoreUnavailableError(f"{self.name} is not open", hint="call start() first, and close() last")
        return call(self._connection)


class InlineStore(SqliteStore):
    """The store itself, as a server knows it."""

    def __init__(self) -> None:
        super().__init__()
        self._presences: dict[tuple[str, str], Presence] = {}
        self._database = _InlineDatabase(None)
        self.on_commit: Callable[[Sequence[RunChange], Collection[str]], None] = lambda changes, stale: None

    async def load(self, run_ids: Collection[str]) -> Mapping[str, RunState]:
        """Read runs, with how far their journals go without a gap."""
        found = await super().load(run_ids)
        return {run_id: await self._reached(run) for run_id, run in found.items()}

    async def _reached(self, run: RunState) -> RunState:
        if run.last_seq <= run.base_seq:
            return run
        return replace(run, last_seq=run.base_seq + len(await self.journal(run, after_seq=run.base_seq)))

    async def journal(self, run: RunState, *, after_seq: int = 0, limit: int | None = None) -> Sequence[JournalEntry]:
        """Read what counts of a journal."""
        return _unbroken(await super().journal(run, after_seq=after_seq, limit=limit), after_seq)

    async def journals(self, runs: Collection[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        """Read what counts of several journals."""
        found = await super().journals(runs)
        return {run_id: _unbroken(entries, 0) for run_id, entries in found.items()}

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes* as the port says, and show them to whoever checks."""
        stale = await super().commit(changes)
        for change in changes:
            if change.after.run_id in stale:
                await self._leave_behind(change)
        self.on_commit(changes, stale)
        return stale

    # Most of what is written in a simulation is who is there, and nothing follows from how that is kept.

    async def announce(self, presence: Presence) -> None:
        """Note who is there."""
        facts: Mapping[str, Any] = json.loads(json.dumps(dict(presence.facts)))
        self._presences[presence.kind, presence.id] = replace(presence, facts=facts)

    async def present(self, kind: Literal["orchestrator", "worker"], *, now: datetime) -> Sequence[Presence]:
        """Tell who is there."""
        self._presences = {key: each for key, each in self._presences.items() if each.expires_at > now}
        there = [each for key, each in self._presences.items() if key[0] == kind]
        return sorted(there, key=lambda each: each.id)

    async def _leave_behind(self, change: RunChange) -> None:
        """Keep what MongoDB keeps of a stale change: it writes what was learnt before it sees the run.

        First into every place that is free, and then in the place of what older epochs have
        left, up to the first that is rightly taken.
        """
        run = change.before or change.after
        closed = replace(run, base_seq=change.after.last_seq)
        for entry in change.journal:
            await self._keep_alone(closed, entry)
        for entry in change.journal:
            if not await self._keep_alone(run, entry):
                break

    async def _keep_alone(self, run: RunState, entry: JournalEntry) -> bool:
        """Keep an entry without its run, and show it if it was kept: under the current dispatch it counts."""
        alone = [RunChange(run, run, (entry,))]
        is_kept = not await super().commit(alone)
        if is_kept:
            self.on_commit(alone, ())
        return is_kept


class StoreLink:
    """The store as one process sees it. It has every method of ``Store``."""

    def __init__(self, store: InlineStore, link: Link) -> None:
        self.is_away: Callable[[], bool] = lambda: False
        self._store = store
        self._link = link

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        return partial(self._call, name)

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        def do() -> Any:
            if self.is_away():
                raise StoreUnavailableError("the store is away")
            return done_at_once(getattr(self._store, name)(*args, **kwargs))

        partly = (lambda: self._commit_partly(*args)) if name == "commit" else None
        try:
            what = f"store.{name}{_about(args[0]) if partly else ''}"
            return await self._link.call(what, do, partly=partly, on_break=self._break)
        except LinkLostError:
            raise StoreUnavailableError("the store was lost; nobody knows what it has done") from None

    def _commit_partly(self, changes: Sequence[RunChange]) -> None:
        """Keep what was learnt by all, and then only some of the runs, as a crash in between leaves it."""
        random = self._link.network.random
        if self.is_away():
            return
        share = random.choice((0.0, 0.5, 0.8, 1.0, 1.0))
        learnt = [
            RunChange(change.before, change.before, tuple(entry for entry in change.journal if random.random() < share))
            for change in changes
            if change.before
        ]
        done_at_once(self._store.commit(learnt))
        if share == 1.0 and random.random() < 0.5:
            done_at_once(self._store.commit([change for change in changes if random.random() < 0.5]))

    def _break(self) -> None:
        self._link.lose(swallow=self._link.network.random.random() < 0.5)


def _about(changes: Sequence[RunChange]) -> str:
    """Say what a commit does to its runs, for the trace and for those who aim at it."""
    done = {"+".join(("learns",) * bool(change.journal) + ("moves",) * change.writes_run) for change in changes}
    return f" that {' '.join(sorted(done))}"


def _unbroken(entries: Sequence[JournalEntry], after_seq: int) -> Sequence[JournalEntry]:
    """Give what counts of a journal: a commit that was cut short may have left gaps."""
    return [entry for expected, entry in enumerate(entries, after_seq + 1) if entry.seq == expected]


def done_at_once(work: Coroutine[Any, Any, T]) -> T:
    """Give the answer of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waits for something")
