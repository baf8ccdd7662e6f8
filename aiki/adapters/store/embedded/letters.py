"""The dead letters of the embedded store. Every function runs inside the database's thread."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from aiki.adapters.store.pages import Cursor, letter_page
from aiki.codec.documents import (
    dump_document,
    letter_from_document,
    letter_to_document,
    load_document,
    milliseconds_of,
    moment_of,
    storable_text,
)
from aiki.engine.commands import DeadLetter
from aiki.engine.queries import DeadLetterPage, StoredDeadLetter

__all__ = ["add_letters", "count_parked", "find_letters", "handle_letter", "read_letter"]

# The same parking told again (same id, same moment) changes nothing; a later one counts and opens the case again.
ADD = """
    INSERT INTO dead_letters (id, at, state, times, document) VALUES (?, ?, 'parked', 1, ?)
    ON CONFLICT (id) DO UPDATE
    SET at = excluded.at, document = excluded.document, times = times + 1, state = 'parked', handled = NULL
    WHERE excluded.at > at
"""
COLUMNS = "document, times, state, handled"


def add_letters(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> None:
    """Keep *letters*."""
    rows = [
        (storable_text(letter.id), milliseconds_of(letter.at), dump_document(letter_to_document(letter)))
        for letter in letters
    ]
    connection.executemany(ADD, rows)


def read_letter(connection: sqlite3.Connection, letter_id: str) -> StoredDeadLetter | None:
    """Read one dead letter."""
    found = connection.execute(f"SELECT {COLUMNS} FROM dead_letters WHERE id = ?", (storable_text(letter_id),))
    row = found.fetchone()
    return None if row is None else _letter_of(row)


def find_letters(
    connection: sqlite3.Connection, *, limit: int, cursor: str | None, include_done: bool
) -> DeadLetterPage:
    """List dead letters, newest first."""
    where, values = ("TRUE" if include_done else "state = 'parked'"), list[Any]()
    if cursor is not None:
        last = Cursor.load(cursor)
        where += " AND (at, id) < (?, ?)"
        values += [milliseconds_of(last.at), storable_text(last.id)]
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM dead_letters WHERE {where} ORDER BY at DESC, id DESC LIMIT ?", [*values, limit + 1]
    )
    return letter_page([_letter_of(row) for row in rows], limit=limit)


def count_parked(connection: sqlite3.Connection, *, limit: int) -> int:
    """Count the letters that wait for somebody, up to *limit*."""
    query = "SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'parked' LIMIT ?)"
    return int(connection.execute(query, (limit,)).fetchone()[0])


def handle_letter(
    connection: sqlite3.Connection, letter_id: str, state: Literal["redriven", "discarded"], *, at: datetime
) -> StoredDeadLetter | None:
    """Note what was done about a letter."""
    connection.execute(
        "UPDATE dead_letters SET state = ?, handled = ? WHERE id = ?",
        (state, milliseconds_of(at), storable_text(letter_id)),
    )
    return read_letter(connection, letter_id)


def _letter_of(row: tuple[Any, ...]) -> StoredDeadLetter:
    text, times, state, handled = row
    return letter_from_document(
        load_document(text),
        times=times,
        state=state,
        handled_at=None if handled is None else moment_of(handled),
    )
