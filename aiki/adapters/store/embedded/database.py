"""One SQLite database with a thread of its own, so that no disk stops the event loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

from aiki.adapters.store.embedded.schema import prepare, refuse_foreign
from aiki.errors import ConfigurationError, StoreUnavailableError

__all__ = ["Database"]

T = TypeVar("T")

# A predecessor that is just ending gets this long to let go of the file.
LOCK_SECONDS = 2.0


class Database:
    """A SQLite file, or a private database in memory, owned by this object alone.

    Everything runs in one thread, one call after the other. The file is locked for as long as
    the database is open, and the operating system unlocks it when the process dies, however.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self.name = "the store in memory" if path is None else fspath(path)
        self._path = None if path is None else Path(path)
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, made if missing, and lock it.

        Raises:
            ConfigurationError: it cannot be a store of ours.
            StoreUnavailableError: another process owns it, or the disk fails.
        """
        if self._thread is not None:
            return
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aiki-store")
        try:
            self._connection = await asyncio.wrap_future(thread.submit(self._connect))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        self._thread = thread

    async def close(self) -> None:
        """Let go of the file; safe to call twice."""
        thread, connection = self._thread, self._connection
        self._thread = self._connection = None
        if thread is None or connection is None:
            return
        await asyncio.wrap_future(thread.submit(connection.close))
        thread.shutdown(wait=False)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run *query* in the database's thread.

        Raises:
            StoreUnavailableError: the disk fails, or the database is not open.
        """
        return await self._run(query)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run *change* as one transaction: safe on the disk when this returns, or not there at all.

        Raises as ``read``; then nothing is known of it, and the same change may be tried again.
        """

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                outcome = change(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return outcome

        return await self._run(transaction)

    async def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        thread, connection = self._thread, self._connection
        if thread is None or connection is None:
            raise StoreUnavailableError(f"{self.name} is not open", hint="call start() first, and close() last")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                outcome = call(connection)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                loop.call_soon_threadsafe(_fail, done, error)
            else:
                loop.call_soon_threadsafe(_finish, done, outcome)

        # Its own future would cost another turn of the event loop, and more to tie it to ours than the hop itself.
        thread.submit(work)
        try:
            return await done
        except sqlite3.Error as error:
            raise StoreUnavailableError(
                f"{self.name} cannot be read or written: {error}", hint="is the disk full, read-only or damaged?"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        if self._path is None:
            connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
            prepare(connection)
            return connection
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, timeout=LOCK_SECONDS, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"{self.name} cannot be opened: {error}", hint="name another file") from error
        try:
            self._take(connection)
        except BaseException:
            with closing(connection):
                raise
        return connection

    def _take(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")  # In this mode, what is locked once stays locked.
            refuse_foreign(connection, name=self.name)  # Before anything is changed in it.
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL waits for the disk at each commit: with less, the last ones would be lost with the power.
            connection.execute("PRAGMA synchronous = FULL")
            prepare(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreUnavailableError(
                    f"{self.name} is in use by another process",
                    hint="an embedded store belongs to one process at a time; end the other one, or name another file",
                ) from error
            raise StoreUnavailableError(
                f"{self.name} cannot be used: {error}", hint="is the disk full or read-only?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self.name} is no store: {error}", hint="name another file") from error


def _finish(done: "asyncio.Future[T]", outcome: T) -> None:
    if not done.done():
        done.set_result(outcome)


def _fail(done: "asyncio.Future[T]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
