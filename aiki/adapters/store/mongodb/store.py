"""The store on MongoDB."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Literal

from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.errors import DuplicateKeyError, OperationFailure

from aiki.adapters.store.mongodb.driver import (
    CREDENTIALS_REFUSED,
    Client,
    Database,
    answering,
    close_client,
    connect,
    open_database,
)
from aiki.adapters.store.mongodb.journal import MongoJournal
from aiki.adapters.store.mongodb.layout import INDEXES
from aiki.adapters.store.mongodb.letters import MongoLetters
from aiki.adapters.store.mongodb.presences import MongoPresences
from aiki.adapters.store.mongodb.runs import MongoRuns
from aiki.adapters.store.pages import letter_page, run_page
from aiki.adapters.store.rules import refuse_oversized
from aiki.engine.commands import DeadLetter
from aiki.engine.journal import JournalEntry
from aiki.engine.queries import DeadLetterPage, RunFilter, RunPage, StoredDeadLetter
from aiki.engine.state import RunState
from aiki.errors import ConfigurationError, StoreError, StoreUnavailableError
from aiki.ports.store import Presence, RunChange, Store

__all__ = ["MongoStore"]


class MongoStore(Store):
    """Runs in MongoDB, one document each; their journals beside them, insert only.

    Writes wait until a majority has them on disk, reads see nothing less. Every write is one document,
    and conditional on what was read: the id of a journal entry lets a single one of two take its place,
    the revision in the filter lets a single one of two commits match. So no transaction is needed, and a
    standalone server and a replica set work the same. A cluster sharded by run (see ``layout``) is designed
    for: writes, and reads on the way of a run, carry its key; sweeps and lists ask all shards. No test runs on one.

    *client* is a connection string, or a client that the application has made: PyMongo's
    ``AsyncMongoClient`` or Motor's ``AsyncIOMotorClient``. Such a client is not closed here. Without
    *database*, the one in the connection string is used, or ``aiki``. No call takes longer than
    *timeout* seconds, whatever happens to the servers.
    """

    def __init__(self, client: "str | Client", database: str | None = None, *, timeout: float = 10.0) -> None:
        self._url = client if isinstance(client, str) else None
        self._client = None if isinstance(client, str) else client
        self._name = database
        self._timeout = timeout
        self._database: Database | None = None
        self._partitions: int | None = None

    async def start(self) -> None:
        """Connect, and make collections and indexes that are missing.

        Raises:
            ConfigurationError: the connection string, the credentials or the user's role do not fit.
            StoreUnavailableError: no server that takes writes can be reached.
        """
        if self._database is not None:
            return
        try:
            if self._client is None:
                self._client = connect(self._url or "")
            database = open_database(self._client, self._name)
            with self._asked_to("make its collections"):
                for name, indexes in INDEXES.items():
                    await database.get_collection(name).create_indexes(list(indexes))
        except StoreUnavailableError as error:
            await self.close()
            raise _as_configuration(error) from error.__cause__
        except BaseException:
            await self.close()
            raise
        self._use(database)

    def _use(self, database: Database) -> None:
        self._runs = MongoRuns(database.get_collection("runs"))
        self._journal = MongoJournal(database.get_collection("journal"))
        self._letters = MongoLetters(database.get_collection("dead_letters"))
        self._settings = database.get_collection("settings")
        self._presences = {
            "orchestrator": MongoPresences(database.get_collection("orchestrators")),
            "worker": MongoPresences(database.get_collection("workers")),
        }
        self._database = database

    async def close(self) -> None:
        self._database = None
        if self._url is not None and self._client is not None:
            client, self._client = self._client, None
            await close_client(client)

    async def partitions(self, wanted: int) -> int:
        with self._calling("settle the number of partitions"):
            with suppress(DuplicateKeyError):  # Decided before, by whoever came first.
                await self._settings.insert_one({"_id": "partitions", "value": wanted})
            self._partitions = await self._find_partitions()
        return self._partitions

    async def load(self, run_ids: Collection[str]) -> Mapping[str, RunState]:
        with self._calling("load runs"):
            found = await self._runs.load(run_ids)
            lasts = await self._journal.last_seqs(found)
        return {run.run_id: replace(run, last_seq=lasts.get(run.run_id, 0)) for run in found}

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes* as the port says.

        Raises:
            RunTooLargeError: one of them would not fit into a document; nothing was kept.
        """
        refuse_oversized(changes)
        with self._calling("commit runs"):
            stale = await self._journal.append(changes)
            writes = [change for change in changes if change.writes_run and change.after.run_id not in stale]
            return stale | await self._runs.write(writes)

    async def journal(self, run: RunState, *, after_seq: int = 0, limit: int | None = None) -> Sequence[JournalEntry]:
        with self._calling("read a journal"):
            return await self._journal.read(run, after_seq=after_seq, limit=limit)

    async def journals(self, runs: Collection[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        with self._calling("read journals"):
            return await self._journal.read_all(runs)

    async def due(self, partitions: Collection[int], *, before: datetime, limit: int) -> Sequence[RunState]:
        with self._calling("find due runs"):
            total = self._partitions or await self._find_partitions()
            return await self._runs.due(partitions, total, before=before, limit=limit)

    async def unfinished(self, partitions: Collection[int], *, after: str | None, limit: int) -> Sequence[RunState]:
        with self._calling("find unfinished runs"):
            total = self._partitions or await self._find_partitions()
            return await self._runs.unfinished(partitions, total, after=after, limit=limit)

    async def find(self, wanted: RunFilter, *, limit: int, cursor: str | None) -> RunPage:
        with self._calling("find runs"):
            return run_page(await self._runs.find(wanted, limit=limit + 1, cursor=cursor), limit=limit)

    async def count(self) -> Mapping[str, Mapping[str, int]]:
        with self._calling("count runs"):
            return await self._runs.count()

    async def expire(self, *, now: datetime, limit: int) -> int:
        with self._calling("remove expired runs"):
            marked = await self._runs.mark_expiring(now=now, limit=limit)
            await self._journal.remove(marked)
            return await self._runs.remove(marked)

    async def add_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        with self._calling("keep dead letters"):
            await self._letters.add(letters)

    async def dead_letter(self, letter_id: str) -> StoredDeadLetter | None:
        with self._calling("read a dead letter"):
            return await self._letters.read(letter_id)

    async def dead_letters(self, *, limit: int, cursor: str | None, include_done: bool) -> DeadLetterPage:
        with self._calling("find dead letters"):
            found = await self._letters.find(limit=limit + 1, cursor=cursor, include_done=include_done)
        return letter_page(found, limit=limit)

    async def count_dead_letters(self, *, limit: int) -> int:
        with self._calling("count dead letters"):
            return await self._letters.count_parked(limit=limit)

    async def handle_dead_letter(
        self, letter_id: str, state: Literal["redriven", "discarded"], *, at: datetime
    ) -> StoredDeadLetter | None:
        with self._calling("note what was done about a dead letter"):
            return await self._letters.handle(letter_id, state, at=at)

    async def announce(self, presence: Presence) -> None:
        with self._calling("note who is there"):
            await self._presences[presence.kind].announce(presence)

    async def present(self, kind: Literal["orchestrator", "worker"], *, now: datetime) -> Sequence[Presence]:
        with self._calling("tell who is there"):
            return await self._presences[kind].find(kind, now=now)

    async def _find_partitions(self) -> int:
        found = await self._settings.find_one({"_id": "partitions"})
        if found is None:
            raise StoreError("the number of partitions is not decided yet", hint="call partitions() first")
        return int(found["value"])

    def _calling(self, doing: str) -> AbstractContextManager[None]:
        if self._database is None:
            raise StoreUnavailableError("the store on MongoDB is not open", hint="call start() first, and close() last")
        return self._asked_to(doing)

    def _asked_to(self, doing: str) -> AbstractContextManager[None]:
        return answering(timeout=self._timeout, doing=doing)


def _as_configuration(error: StoreUnavailableError) -> ConfigurationError | StoreUnavailableError:
    """Tell what only an operator can mend from what may mend itself."""
    match error.__cause__:
        case OperationFailure(code=code) if code in CREDENTIALS_REFUSED:
            return ConfigurationError(error.message, hint=error.hint)
        case DriverConfigurationError():
            return ConfigurationError(error.message, hint=error.hint)
        case _:
            return error
