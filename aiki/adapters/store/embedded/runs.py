"""The runs of the embedded store. Every function runs inside the database's thread."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any

from aiki.adapters.store.embedded.journal import (
    INSERT_ENTRY,
    entries_missing,
    entry_rows,
    remove_journal,
    replace_entries,
)
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

__all__ = ["count_runs", "due_runs", "expire_runs", "find_runs", "keep_all", "load_runs", "unfinished_runs"]

# SQLite takes a bounded number of values in one statement.
IDS_AT_ONCE = 500

COLUMNS = (
    *("run_id", "incarnation", "revision", "epoch", "base_seq", "workflow", "version", "status", "created", "slot"),
    *("open", "due", "expires", "expiring", "document"),
)
INSERT = f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT DO NOTHING"
# What decides which entries count is written each time: it is in no index, and must never disagree with the document.
ALWAYS_WRITTEN = frozenset(COLUMNS.index(name) for name in ("revision", "epoch", "base_seq"))
UPDATE = "UPDATE runs SET {} WHERE run_id = ? AND revision = ? AND incarnation = ?"

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


def keep_all(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> Collection[str]:
    """Keep *changes*, each whole or not at all, and tell whose was stale."""
    if _keep_together(connection, changes):
        return ()
    # At least one of them is stale, or was given before. Each on its own, it shows which.
    connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    return [change.after.run_id for change in changes if not _keep(connection, change)]


def _keep_together(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> bool:
    """Keep *changes* if nothing is in their way, with few statements and without a read; tell whether it was so."""
    rows: dict[str, list[Sequence[Any]]] = {}
    for change in changes:
        if change.journal:
            rows.setdefault(INSERT_ENTRY, []).extend(entry_rows(change.after, change.journal))
        if change.writes_run:
            statement, row = _written(change)
            rows.setdefault(statement, []).append(row)
    if any(connection.executemany(statement, each).rowcount != len(each) for statement, each in rows.items()):
        return False
    for change in changes:
        if _has_other_tags(change):
            _write_tags(connection, change.after)
    return True


def _keep(connection: sqlite3.Connection, change: RunChange) -> bool:
    """Keep *change* whole, or nothing of it when it is stale."""
    missing = entries_missing(connection, change)
    if missing is None or (change.writes_run and not _write_run(connection, change)):
        return False
    replace_entries(connection, change.after, missing)
    return True


def _write_run(connection: sqlite3.Connection, change: RunChange) -> bool:
    statement, row = _written(change)
    if not connection.execute(statement, row).rowcount:
        return _is_there(connection, change.after)  # The same change again is no stale one.
    if _has_other_tags(change):
        _write_tags(connection, change.after)
    return True


def _written(change: RunChange) -> tuple[str, Sequence[Any]]:
    """Make the statement that writes a run, and its values."""
    before, after = change.before, change.after
    row, document = _row(after), dump_document(run_to_document(after))
    if before is None:
        return INSERT, (*row, document)
    pairs = enumerate(zip(row, _row(before), strict=True))
    changed = tuple(number for number, (new, old) in pairs if new != old or number in ALWAYS_WRITTEN)
    values = [row[number] for number in changed]
    guard = (storable_text(before.run_id), before.revision, storable_text(before.incarnation))
    return _update(changed), (*values, document, *guard)


@cache
def _update(changed: tuple[int, ...]) -> str:
    """Name the columns that are written, and no others: SQLite writes every index with a column that is named."""
    return UPDATE.format(", ".join(f"{name} = ?" for name in (*(COLUMNS[number] for number in changed), "document")))


def _is_there(connection: sqlite3.Connection, run: RunState) -> bool:
    there = connection.execute("SELECT document FROM runs WHERE run_id = ?", (storable_text(run.run_id),)).fetchone()
    return there is not None and load_document(there[0]) == load_document(dump_document(run_to_document(run)))


def _has_other_tags(change: RunChange) -> bool:
    return bool(change.after.tags) if change.before is None else change.before.tags != change.after.tags


def _write_tags(connection: sqlite3.Connection, run: RunState) -> None:
    run_id = storable_text(run.run_id)
    connection.execute("DELETE FROM tags WHERE run_id = ?", (run_id,))
    rows = [(storable_text(tag), run_id) for tag in run.tags]
    connection.executemany("INSERT OR IGNORE INTO tags (tag, run_id) VALUES (?, ?)", rows)


def _row(run: RunState) -> tuple[Any, ...]:
    """Write all columns but the document."""
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
