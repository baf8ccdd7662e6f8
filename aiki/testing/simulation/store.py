"""A simulated store: SQLite in memory without a thread, at the other end of a network.

Commits go wrong as those of MongoDB do, which writes many documents and has no transaction
over them: what was learnt may be there and the run that learnt it not yet, for some
of the runs of a commit and not for others, and whoever asked is told that it failed.
"""

import sqlite3
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from aiki.adapters.store.embedded import SqliteStore
from aiki.adapters.store.embedded.database import Database
from aiki.errors import StoreUnavailableError
from aiki.ports.store import RunChange
from aiki.testing.simulation.network import Link, LinkLostError

__all__ = ["InlineStore", "StoreLink", "done_at_once"]

T = TypeVar("T")


class _InlineDatabase(Database):
    """A database that answers before anybody waits."""

    async def open(self) -> None:
        if self._connection is None:
            self._connection = self._connect()

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
        self._database = _InlineDatabase(None)
        self.on_commit: Callable[[Sequence[RunChange], Collection[str]], None] = lambda changes, stale: None

    async def commit(self, changes: Sequence[RunChange]) -> Collection[str]:
        """Keep *changes* as the port says, and show them to whoever checks."""
        stale = await super().commit(changes)
        self.on_commit(changes, stale)
        return stale


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
            return await self._link.call(f"store.{name}", do, partly=partly, on_break=self._break)
        except LinkLostError:
            raise StoreUnavailableError("the store was lost; nobody knows what it has done") from None

    def _commit_partly(self, changes: Sequence[RunChange]) -> None:
        """Keep what was learnt by all, and then only some of the runs, as a crash in between leaves it."""
        random = self._link.network.random
        if self.is_away():
            return
        learnt = [RunChange(change.before, change.before, change.journal) for change in changes if change.before]
        done_at_once(self._store.commit([change for change in learnt if random.random() < 0.7]))
        if random.random() < 0.5:
            done_at_once(self._store.commit([change for change in changes if random.random() < 0.5]))

    def _break(self) -> None:
        self._link.lose(swallow=self._link.network.random.random() < 0.5)


def done_at_once(work: Coroutine[Any, Any, T]) -> T:
    """Give the answer of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waits for something")
