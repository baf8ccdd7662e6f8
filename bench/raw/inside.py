"""The limit of the embedded engine: its rows in its tables, with its commits, and nothing that decides."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from io import FileIO
from itertools import count
from pathlib import Path
from sqlite3 import Connection
from typing import Any, NamedTuple

from aiki.adapters.store.embedded.database import Database
from aiki.adapters.store.embedded.journal import INSERT_ENTRY
from aiki.adapters.store.embedded.runs import COLUMNS, UPDATE
from aiki.adapters.store.embedded.runs import INSERT as INSERT_RUN
from aiki.cli.measuring import in_flight, one_at_a_time, percentile
from bench.figures import Figures
from bench.load import IN_FLIGHT, Scale
from bench.raw.shape import COMPLETED, RECORDED, REQUESTED, STARTED, entry_document, run_document, run_id

__all__ = ["embedded_limit", "embedded_parts", "entry_row", "run_row"]

STEPS = 3

FLUSHED_BYTES = 8192

INCARNATION = run_document(0, 1)["inc"]
REVISIONS = {REQUESTED: 1, STARTED: 2, COMPLETED: 3}

# What changes of a run with its last event.
CHANGED = {2: ("revision", "status", "document"), 3: ("revision", "status", "open", "expires", "document")}


class Fact(NamedTuple):
    """Something that has to be in the file before what follows from it."""

    kind: bytes
    number: int
    seq: int
    written: "asyncio.Future[None]"


class RawEngine:
    """Writes runs, and does nothing else with them. What comes while a commit is under way goes with the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._facts: list[Fact] = []
        self._arrived = asyncio.Event()
        self._ended: dict[int, asyncio.Future[None]] = {}
        self._executing: set[asyncio.Task[None]] = set()
        self._numbers = count()

    async def run_once(self) -> None:
        """Ask for a run, and wait for its outcome."""
        number = next(self._numbers)
        self._ended[number] = ended = self._loop.create_future()
        await self._say(REQUESTED, number)
        await ended

    async def write(self) -> None:
        """Write what is said, order what follows from it, and confirm it; until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            facts, self._facts = self._facts, []
            await self._database.write(partial(_keep, facts))
            for fact in facts:
                if fact.kind == REQUESTED:
                    executing = self._loop.create_task(self._execute(fact.number))
                    self._executing.add(executing)
                    executing.add_done_callback(self._executing.discard)
                elif fact.kind == COMPLETED:
                    self._ended.pop(fact.number).set_result(None)
                fact.written.set_result(None)

    async def _execute(self, number: int) -> None:
        """Execute a run, each step after the commit of the one before."""
        self._say(STARTED, number)
        for seq in range(1, STEPS + 1):
            recorded = self._say(RECORDED, number, seq)
            if seq < STEPS:
                await recorded  # Behind the last one nothing starts that would have to wait: the end goes along.
        await self._say(COMPLETED, number)

    def _say(self, kind: bytes, number: int, seq: int = 0) -> "asyncio.Future[None]":
        written: asyncio.Future[None] = self._loop.create_future()
        self._facts.append(Fact(kind, number, seq, written))
        self._arrived.set()
        return written


def embedded_limit(folder: Path, scale: Scale) -> Figures:
    """W1 in one process, kept in a file, without an engine."""
    return asyncio.run(_embedded_limit(folder / f"limit-{time.monotonic_ns()}.db", scale))


async def _embedded_limit(file: Path, scale: Scale) -> Figures:
    database = Database(file)
    await database.open()
    engine = RawEngine(database)
    writing = asyncio.create_task(engine.write())
    try:
        await engine.run_once()
        cpu = time.process_time()
        loaded = await in_flight(lambda _: engine.run_once(), times=scale.runs, at_once=IN_FLIGHT)
        taken = time.process_time() - cpu
        alone = await one_at_a_time(lambda _: engine.run_once(), times=scale.one_at_a_time)
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await database.close()
    return {
        "runs/s": loaded.per_second,
        "CPU s per 1,000 runs": taken / scale.runs * 1000,
        "one at a time p50 ms": percentile(alone.taken, 0.5) * 1000,
        "one at a time p99 ms": percentile(alone.taken, 0.99) * 1000,
    }


def embedded_parts(folder: Path, scale: Scale) -> Figures:
    """What a commit is made of: the flush, the statements, the way to the thread and back. Medians."""
    return asyncio.run(_embedded_parts(folder / f"parts-{time.monotonic_ns()}.db", scale.one_at_a_time))


async def _embedded_parts(file: Path, times: int) -> Figures:
    database = Database(file)
    await database.open()
    numbers = count()
    try:
        written = [await _timed_commit(database, next(numbers)) for _ in range(times)]
        hops = [await _timed_hop(database) for _ in range(times)]
        with file.with_suffix(".flushed").open("wb", buffering=0) as flushed:
            flushes = [_timed_flush(flushed, number) for number in range(times)]
    finally:
        await database.close()
    return {
        "flush 8 KiB ms": percentile(flushes, 0.5) * 1000,
        "commit an entry, there and back ms": percentile(written, 0.5) * 1000,
        "to the thread and back ms": percentile(hops, 0.5) * 1000,
    }


async def _timed_commit(database: Database, number: int) -> float:
    began = time.perf_counter()
    await database.write(lambda connection: connection.execute(INSERT_ENTRY, entry_row(number, 1)))
    return time.perf_counter() - began


async def _timed_hop(database: Database) -> float:
    began = time.perf_counter()
    await database.read(id)
    return time.perf_counter() - began


def _timed_flush(file: FileIO, number: int) -> float:
    file.seek(number % 100 * FLUSHED_BYTES)
    file.write(bytes(FLUSHED_BYTES))
    began = time.perf_counter()
    os.fdatasync(file.fileno())
    return time.perf_counter() - began


def _keep(facts: Sequence[Fact], connection: Connection) -> None:
    """Write each run once, however much was said of it, and all entries."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for fact in facts:
        revision = REVISIONS.get(fact.kind)
        if revision is not None:
            first.setdefault(fact.number, revision)
            last[fact.number] = revision
    entries = [entry_row(fact.number, fact.seq) for fact in facts if fact.kind == RECORDED]
    inserts = [run_row(number, last[number]) for number, revision in first.items() if revision == 1]
    connection.executemany(INSERT_ENTRY, entries)
    connection.executemany(INSERT_RUN, inserts)
    for revision, names in CHANGED.items():
        rows = [
            (*_columns(run_row(number, revision), names), run_id(number), first[number] - 1, INCARNATION)
            for number in last
            if first[number] > 1 and last[number] == revision
        ]
        connection.executemany(UPDATE.format(", ".join(f"{name} = ?" for name in names)), rows)


def _columns(row: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [row[COLUMNS.index(name)] for name in names]


def run_row(number: int, revision: int) -> tuple[Any, ...]:
    """Make the row of a run that was requested (1), has started (2) or is completed (3)."""
    document = run_document(number, revision)
    status, created = document["status"], _milliseconds(document["created"])
    return (
        document["_id"],
        document["inc"],
        revision,
        1,
        0,
        document["workflow"],
        document["version"],
        status,
        created,
        document.pop("slot"),
        document.pop("open", False),
        None,
        created if revision == REVISIONS[COMPLETED] else None,
        False,
        _text(document),
    )


def entry_row(number: int, seq: int) -> tuple[Any, ...]:
    """Make the row of a journal entry."""
    document = entry_document(number, seq)
    for name in ("_id", "run", "whole"):  # The row has them in columns, or not at all.
        del document[name]
    return run_id(number), INCARNATION, seq, 1, _text(document)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), default=_milliseconds)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
