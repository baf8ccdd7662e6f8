"""The journals of the embedded store. Every function runs inside the database's thread."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from aiki.adapters.store.rules import Conflict, base_of, settle
from aiki.codec.documents import (
    dump_document,
    entry_from_document,
    entry_to_document,
    load_document,
    storable_text,
)
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.ports.store import RunChange

__all__ = ["INSERT_ENTRY", "entries_missing", "entry_rows", "read_journal", "remove_journal", "replace_entries"]

INTO_JOURNAL = "INTO journal (run_id, incarnation, seq, epoch, document) VALUES (?, ?, ?, ?, ?)"
INSERT_ENTRY = f"INSERT {INTO_JOURNAL} ON CONFLICT DO NOTHING"
REPLACE_ENTRY = f"INSERT OR REPLACE {INTO_JOURNAL}"
THERE = "SELECT document FROM journal WHERE run_id = ? AND incarnation = ? AND seq BETWEEN ? AND ?"
COUNTING = """
    SELECT document FROM journal
    WHERE run_id = ? AND incarnation = ? AND seq > ? AND (seq <= ? OR epoch = ?)
    ORDER BY seq LIMIT ?
"""


def entries_missing(connection: sqlite3.Connection, change: RunChange) -> Sequence[JournalEntry] | None:
    """Tell which entries of *change* have still to be written; ``None`` when their place is rightly taken."""
    if not change.journal:
        return ()
    place = (storable_text(change.after.run_id), storable_text(change.after.incarnation))
    rows = connection.execute(THERE, (*place, change.journal[0].seq, change.journal[-1].seq))
    there = {entry.seq: entry for entry in (entry_from_document(load_document(text)) for (text,) in rows)}
    if not there:
        return change.journal

    missing = []
    for entry in change.journal:
        conflict = settle(there[entry.seq], entry, base_seq=base_of(change)) if entry.seq in there else None
        if conflict is Conflict.STALE:
            return None
        if conflict is not Conflict.KEPT:
            missing.append(entry)
    return missing


def entry_rows(run: RunState, entries: Sequence[JournalEntry]) -> list[tuple[Any, ...]]:
    """Write *entries* of *run* as rows."""
    run_id, incarnation = storable_text(run.run_id), storable_text(run.incarnation)
    return [(run_id, incarnation, entry.seq, entry.epoch, dump_document(entry_to_document(entry))) for entry in entries]


def replace_entries(connection: sqlite3.Connection, run: RunState, entries: Sequence[JournalEntry]) -> None:
    """Write *entries*, in place of what an older epoch left behind."""
    connection.executemany(REPLACE_ENTRY, entry_rows(run, entries))


def read_journal(
    connection: sqlite3.Connection, run: RunState, *, after_seq: int = 0, limit: int | None = None
) -> list[JournalEntry]:
    """Read the entries of *run* that count."""
    place = (storable_text(run.run_id), storable_text(run.incarnation))
    rows = connection.execute(
        COUNTING, (*place, after_seq, run.base_seq, run.pair.epoch, -1 if limit is None else limit)
    )
    return [entry_from_document(load_document(text)) for (text,) in rows]


def remove_journal(connection: sqlite3.Connection, run_id: str | bytes, incarnation: str | bytes) -> None:
    """Remove all entries of one incarnation of a run."""
    connection.execute("DELETE FROM journal WHERE run_id = ? AND incarnation = ?", (run_id, incarnation))
