"""The embedded store: SQLite, for one process and no server."""

from aiki.adapters.store.embedded.store import SqliteStore

__all__ = ["SqliteStore"]
