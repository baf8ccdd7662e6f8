"""The tables of the embedded store, and how a file of an older Aiki becomes one of this.

``PRAGMA user_version`` counts the steps that a file has taken; ``application_id``
tells a store of Aiki from any other SQLite file. Documents carry a format version
of their own and are upgraded when they are read (``aiki.codec.upgrades``).
"""

import sqlite3

from aiki.errors import ConfigurationError

__all__ = ["prepare", "refuse_foreign"]

APPLICATION_ID = int.from_bytes(b"Aiki", "big")

# Moments are milliseconds since 1970. `slot` % partitions is the partition of a run; `open` is 1 until it is final.
STEPS = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

    CREATE TABLE runs (
        run_id      TEXT PRIMARY KEY,
        incarnation TEXT NOT NULL,
        revision    INTEGER NOT NULL,
        epoch       INTEGER NOT NULL,
        base_seq    INTEGER NOT NULL,
        workflow    TEXT NOT NULL,
        version     TEXT NOT NULL,
        status      TEXT NOT NULL,
        created     INTEGER NOT NULL,
        slot        INTEGER NOT NULL,
        open        INTEGER NOT NULL,
        due         INTEGER,
        expires     INTEGER,
        expiring    INTEGER NOT NULL,
        document    TEXT NOT NULL
    );
    CREATE INDEX runs_listed ON runs (created DESC, run_id DESC);
    CREATE INDEX runs_of_workflow ON runs (workflow, status, created DESC, run_id DESC);
    CREATE INDEX runs_of_status ON runs (status, created DESC, run_id DESC);
    CREATE INDEX runs_due ON runs (due, run_id) WHERE due IS NOT NULL;
    CREATE INDEX runs_open ON runs (run_id) WHERE open;
    CREATE INDEX runs_expiring ON runs (expires) WHERE expires IS NOT NULL;

    CREATE TABLE tags (
        tag    TEXT NOT NULL,
        run_id TEXT NOT NULL,
        PRIMARY KEY (tag, run_id)
    ) WITHOUT ROWID;
    CREATE INDEX tags_of_run ON tags (run_id);

    CREATE TABLE journal (
        run_id      TEXT NOT NULL,
        incarnation TEXT NOT NULL,
        seq         INTEGER NOT NULL,
        epoch       INTEGER NOT NULL,
        document    TEXT NOT NULL,
        PRIMARY KEY (run_id, incarnation, seq)
    ) WITHOUT ROWID;

    CREATE TABLE dead_letters (
        id       TEXT PRIMARY KEY,
        at       INTEGER NOT NULL,
        state    TEXT NOT NULL,
        times    INTEGER NOT NULL,
        handled  INTEGER,
        document TEXT NOT NULL
    );
    CREATE INDEX dead_letters_listed ON dead_letters (at DESC, id DESC);

    CREATE TABLE presences (
        kind    TEXT NOT NULL,
        id      TEXT NOT NULL,
        expires INTEGER NOT NULL,
        facts   TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    """,
    """
    CREATE INDEX dead_letters_parked ON dead_letters (at DESC, id DESC) WHERE state = 'parked';
    """,
)


def refuse_foreign(connection: sqlite3.Connection, *, name: str) -> None:
    """Make sure that a database is ours to write to.

    Raises:
        ConfigurationError: it belongs to another program, or to a newer Aiki.
    """
    if _number(connection, "application_id") != APPLICATION_ID and not _is_empty(connection):
        raise ConfigurationError(f"{name} is a database of another program", hint="name a file of its own for Aiki")
    taken = _number(connection, "user_version")
    if taken > len(STEPS):
        raise ConfigurationError(
            f"{name} has schema version {taken}; this Aiki knows up to {len(STEPS)}", hint="upgrade Aiki"
        )


def prepare(connection: sqlite3.Connection) -> None:
    """Bring a database of ours to the current schema, in one transaction."""
    steps = STEPS[_number(connection, "user_version") :]
    if not steps:
        return
    marks = f"PRAGMA user_version = {len(STEPS)}; PRAGMA application_id = {APPLICATION_ID}"
    connection.executescript(f"BEGIN IMMEDIATE; {''.join(steps)}; {marks}; COMMIT")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None
