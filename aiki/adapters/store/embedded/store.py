"""The store on SQLite."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import Literal

from aiki.adapters.store.embedded import letters as dead_letters
from aiki.adapters.store.embedded import runs as all_runs
from aiki.adapters.store.embedded.database import Database
from aiki.adapters.store.embedded.journal import read_journal
from aiki.adapters.store.rules import refuse_oversized
from aiki.codec.documents import milliseconds_of, moment_of
from aiki.engine.commands import DeadLetter
from aiki.engine.journal import JournalEntry
from aiki.engine.queries import DeadLetterPage, RunFilter, RunPage, StoredDeadLetter
from aiki.engine.state import RunState
from aiki.errors import StoreError
from aiki.ports.store import Presence, RunChange, Store

__all__ = ["SqliteStore"]


class SqliteStore(Store):
    """Runs in one SQLite file, or in memory: no server, one process.

    A commit is one transaction, on the disk when it returns: it survives a killed process and a
    power cut. (In memory, it survives nothing.) The file belongs to one process at a time, which
    ``start`` makes sure of; all calls share one thread, so concurrent ones follow each other.
    """

    def __init__(self, path: str | PathLike[str] | None = None) -> None:
        self._database = Database(path)
        self._partitions: int | None = None

    async def start(self) -> None:
        """Open the file (made if missing), lock it and bring it to the current schema.

        Raises:
            ConfigurationError: it is a database of another program or of a newer Aiki, or cannot be made.
            StoreUnavailableError: another process owns it.
        """
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def partitions(self, wanted: int) -> int:
        def decide(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT OR IGNORE INTO settings (name, value) VALUES ('partitions', ?)", (wanted,))
            return _partitions(connection)

        self._partitions = await self._database.write(decide)
        return self._partitions

    async def load(self, run_ids: Collection[str]) -> Mapping[str, RunState]:
        return await self._database.read(lambda connection: all_runs.load_runs(connection, run_ids))

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes* as the port says.

        Raises:
            RunTooLargeError: one of them would not fit into a document; nothing was kept.
        """
        refuse_oversized(changes)
        return await self._database.write(lambda connection: all_runs.keep_all(connection, changes))

    async def journal(self, run: RunState, *, after_seq: int = 0, limit: int | None = None) -> Sequence[JournalEntry]:
        return await self._database.read(
            lambda connection: read_journal(connection, run, after_seq=after_seq, limit=limit)
        )

    async def journals(self, runs: Collection[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        return await self._database.read(lambda connection: {run.run_id: read_journal(connection, run) for run in runs})

    async def due(self, partitions: Collection[int], *, before: datetime, limit: int) -> Sequence[RunState]:
        total = await self._decided_partitions()
        return await self._database.read(
            lambda connection: all_runs.due_runs(connection, partitions, total, before=before, limit=limit)
        )

    async def unfinished(self, partitions: Collection[int], *, after: str | None, limit: int) -> Sequence[RunState]:
        total = await self._decided_partitions()
        return await self._database.read(
            lambda connection: all_runs.unfinished_runs(connection, partitions, total, after=after, limit=limit)
        )

    async def find(self, wanted: RunFilter, *, limit: int, cursor: str | None) -> RunPage:
        return await self._database.read(
            lambda connection: all_runs.find_runs(connection, wanted, limit=limit, cursor=cursor)
        )

    async def count(self) -> Mapping[str, Mapping[str, int]]:
        return await self._database.read(all_runs.count_runs)

    async def expire(self, *, now: datetime, limit: int) -> int:
        return await self._database.write(lambda connection: all_runs.expire_runs(connection, now=now, limit=limit))

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        await self._database.write(lambda connection: dead_letters.add_letters(connection, letters))

    async def dead_letter(self, letter_id: str) -> StoredDeadLetter | None:
        return await self._database.read(lambda connection: dead_letters.read_letter(connection, letter_id))

    async def dead_letters(self, *, limit: int, cursor: str | None, include_done: bool) -> DeadLetterPage:
        return await self._database.read(
            lambda connection: dead_letters.find_letters(
                connection, limit=limit, cursor=cursor, include_done=include_done
            )
        )

    async def count_dead_letters(self, *, limit: int) -> int:
        return await self._database.read(lambda connection: dead_letters.count_parked(connection, limit=limit))

    async def handle_dead_letter(
        self, letter_id: str, state: Literal["redriven", "discarded"], *, at: datetime
    ) -> StoredDeadLetter | None:
        return await self._database.write(
            lambda connection: dead_letters.handle_letter(connection, letter_id, state, at=at)
        )

    async def announce(self, presence: Presence) -> None:
        row = (presence.kind, presence.id, milliseconds_of(presence.expires_at), json.dumps(dict(presence.facts)))
        await self._database.write(
            lambda connection: connection.execute("INSERT OR REPLACE INTO presences VALUES (?, ?, ?, ?)", row)
        )

    async def present(self, kind: Literal["orchestrator", "worker"], *, now: datetime) -> Sequence[Presence]:
        def find(connection: sqlite3.Connection) -> list[Presence]:
            moment = milliseconds_of(now)
            connection.execute("DELETE FROM presences WHERE expires <= ?", (moment,))
            rows = connection.execute("SELECT id, facts, expires FROM presences WHERE kind = ? ORDER BY id", (kind,))
            return [
                Presence(id=name, kind=kind, facts=json.loads(facts), expires_at=moment_of(expires))
                for name, facts, expires in rows
            ]

        return await self._database.write(find)

    async def _decided_partitions(self) -> int:
        if self._partitions is None:
            self._partitions = await self._database.read(_partitions)
        return self._partitions


def _partitions(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM settings WHERE name = 'partitions'").fetchone()
    if row is None:
        raise StoreError("the number of partitions is not decided yet", hint="call partitions() first")
    return int(row[0])
