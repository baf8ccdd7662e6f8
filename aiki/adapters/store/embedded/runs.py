"""The runs of the embedded store. Every function runs inside the database's thread."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from aiki.adapters.store.embedded.journal import entries_missing, insert_entries, remove_journal
from aiki.adapters.store.pages import Cursor, run_page
from aiki.adapters.store.rules import slot_of
from aiki.codec.documents import (
    dump_document,
    load_document,
    milliseconds_of,
    run_from_document,
    run_to_document,
    storable_text,
    text_of,
)
from aiki.engine.queries import RunFilter, RunPage
from aiki.engine.state import RunState
from aiki.ports.store import RunChange

__all__ = ["count_runs", "due_runs", "expire_runs", "find_runs", "keep", "load_runs", "unfinished_runs"]

# SQLite takes a bounded number of values in one statement.
IDS_AT_ONCE = 500

COLUMNS = (
    "run_id, incarnation, revision, epoch, base_seq, workflow, version, status, created, slot, open, due, expires, "
    "expiring, document"
)
INSERT = f"INSERT INTO runs ({COLUMNS}) VALUES ({', '.join('?' * 15)}) ON CONFLICT DO NOTHING"
UPDATE = f"""
    UPDATE runs SET ({COLUMNS}) = ({", ".join("?" * 15)})
    WHERE run_id = ? AND revision = ? AND incarnation = ?
"""

# The last entry that counts is near the end of the journal: the search goes backwards from there.
LOAD = """
    SELECT document, (
        SELECT seq FROM journal
        WHERE journal.run_id = runs.run_id AND journal.incarnation = runs.incarnation
          AND (seq <= runs.base_seq OR journal.epoch = runs.epoch)
        ORDER BY seq DESC LIMIT 1
    )
    FROM runs WHERE run_id IN ({})
"""


def load_runs(connection: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, RunState]:
    """Read runs with how far their journals go."""
    found: dict[str, RunState] = {}
    for ids in _in_batches(run_ids):
        for text, last_seq in connection.execute(LOAD.format(_marks(ids)), [storable_text(run_id) for run_id in ids]):
            run = run_from_document(load_document(text), last_seq=last_seq or 0)
            found[run.run_id] = run
    return found


def keep(connection: sqlite3.Connection, change: RunChange) -> bool:
    """Keep *change* whole, or nothing of it when it is stale."""
    missing = entries_missing(connection, change)
    if missing is None or (change.writes_run and not _write_run(connection, change)):
        return False
    insert_entries(connection, change.after, missing)
    return True


def _write_run(connection: sqlite3.Connection, change: RunChange) -> bool:
    before, after = change.before, change.after
    row = _row(after)
    if before is None:
        written = connection.execute(INSERT, row).rowcount
    else:
        guard = (storable_text(before.run_id), before.revision, storable_text(before.incarnation))
        written = connection.execute(UPDATE, (*row, *guard)).rowcount
    if not written:
        return _is_there(connection, after)  # The same change again is no stale one.

    if before is None or before.tags != after.tags:
        _write_tags(connection, after)
    return True


def _is_there(connection: sqlite3.Connection, run: RunState) -> bool:
    there = connection.execute("SELECT document FROM runs WHERE run_id = ?", (storable_text(run.run_id),)).fetchone()
    return there is not None and load_document(there[0]) == load_document(dump_document(run_to_document(run)))


def _write_tags(connection: sqlite3.Connection, run: RunState) -> None:
    run_id = storable_text(run.run_id)
    connection.execute("DELETE FROM tags WHERE run_id = ?", (run_id,))
    rows = [(storable_text(tag), run_id) for tag in run.tags]
    connection.executemany("INSERT OR IGNORE INTO tags (tag, run_id) VALUES (?, ?)", rows)


def _row(run: RunState) -> tuple[Any, ...]:
    return (
        storable_text(run.run_id),
        storable_text(run.incarnation),
        run.revision,
        run.pair.epoch,
        run.base_seq,
        storable_text(run.workflow),
        storable_text(run.version),
        str(run.status),
        milliseconds_of(run.created_at),
        slot_of(run.run_id),
        not run.status.is_final,
        _maybe_milliseconds(run.due_at),
        _maybe_milliseconds(run.expires_at),
        run.expiring,
        dump_document(run_to_document(run)),
    )


def due_runs(
    connection: sqlite3.Connection, ours: Collection[int], partitions: int, *, before: datetime, limit: int
) -> list[RunState]:
    """Find the runs of *ours* that are due, the earliest first."""
    return _read_runs(
        connection,
        f"SELECT document FROM runs WHERE due < ? AND slot % ? IN ({_marks(ours)}) ORDER BY due, run_id LIMIT ?",
        (milliseconds_of(before), partitions, *ours, limit),
    )


def unfinished_runs(
    connection: sqlite3.Connection, ours: Collection[int], partitions: int, *, after: str | None, limit: int
) -> list[RunState]:
    """Find the runs of *ours* that are not final, by id."""
    return _read_runs(
        connection,
        f"SELECT document FROM runs WHERE open AND run_id > ? AND slot % ? IN ({_marks(ours)}) ORDER BY run_id LIMIT ?",
        (storable_text(after or ""), partitions, *ours, limit),
    )


def find_runs(connection: sqlite3.Connection, wanted: RunFilter, *, limit: int, cursor: str | None) -> RunPage:
    """List runs, newest first, one more than asked for to know whether there is another page."""
    conditions = [*_conditions(wanted)]
    if cursor is not None:
        last = Cursor.load(cursor)
        conditions.append(("(created, run_id) < (?, ?)", (milliseconds_of(last.at), storable_text(last.id))))
    where = " AND ".join(condition for condition, _ in conditions) or "TRUE"
    found = _read_runs(
        connection,
        f"SELECT document FROM runs WHERE {where} ORDER BY created DESC, run_id DESC LIMIT ?",
        [*(value for _, values in conditions for value in values), limit + 1],
    )
    return run_page(found, limit=limit)


def _conditions(wanted: RunFilter) -> Iterator[tuple[str, Sequence[Any]]]:
    if wanted.workflow is not None:
        yield "workflow = ?", (storable_text(wanted.workflow),)
    if wanted.version is not None:
        yield "version = ?", (storable_text(wanted.version),)
    if wanted.statuses:
        yield f"status IN ({_marks(wanted.statuses)})", [str(status) for status in wanted.statuses]
    if wanted.tag is not None:
        yield "run_id IN (SELECT run_id FROM tags WHERE tag = ?)", (storable_text(wanted.tag),)
    if wanted.created_after is not None:
        yield "created > ?", (milliseconds_of(wanted.created_after),)
    if wanted.created_before is not None:
        yield "created < ?", (milliseconds_of(wanted.created_before),)


def count_runs(connection: sqlite3.Connection) -> Mapping[str, Mapping[str, int]]:
    """Count runs by workflow and status."""
    counts: dict[str, dict[str, int]] = {}
    for workflow, status, number in connection.execute(
        "SELECT workflow, status, count(*) FROM runs GROUP BY workflow, status ORDER BY workflow, status"
    ):
        counts.setdefault(text_of(workflow), {})[status] = number
    return counts


def expire_runs(connection: sqlite3.Connection, *, now: datetime, limit: int) -> int:
    """Remove finished runs that have expired. One transaction does what rule 16 wants done in steps."""
    expired = connection.execute(
        "SELECT run_id, incarnation FROM runs WHERE expires < ? ORDER BY expires LIMIT ?", (milliseconds_of(now), limit)
    ).fetchall()
    for run_id, incarnation in expired:
        remove_journal(connection, run_id, incarnation)
        connection.execute("DELETE FROM tags WHERE run_id = ?", (run_id,))
        connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
    return len(expired)


def _read_runs(connection: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[RunState]:
    return [run_from_document(load_document(text)) for (text,) in connection.execute(query, values)]


def _maybe_milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else milliseconds_of(moment)


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _in_batches(run_ids: Collection[str]) -> Iterator[Sequence[str]]:
    waiting = iter(run_ids)
    while batch := list(islice(waiting, IDS_AT_ONCE)):
        yield batch
