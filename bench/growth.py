"""Rows about growth: more processes than one of each, and more runs in the database than in its cache."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from pymongo.collection import Collection

from aiki import Client
from aiki.adapters.store.mongodb.layout import INDEXES, entry_place, journal_document, run_document
from aiki.adapters.store.rules import slot_of
from aiki.engine.ids import run_id_at
from aiki.testing.builders import T0, after, appended, completed, requested, started
from bench.figures import Figures
from bench.load import Scale, throughput_of
from bench.system import System
from bench.workflows import run_three, three_steps

__all__ = ["stored", "two_of_each"]

Document = dict[str, Any]

CPU = "CPU s per 1,000 runs"
SPEED = "runs/s"

# Since when the finished runs have come: less than runs are kept.
AGE = timedelta(days=10)
MILLISECOND = timedelta(milliseconds=1)
# Runs in one write of the filling: some megabytes.
RUNS_AT_ONCE = 2000
STEPS = 3
ROUNDS = 5


async def two_of_each(system: System, client: Client, scale: Scale) -> Figures:
    """W1 with one orchestrator and one worker, then with two of each: what sharing the work costs."""
    alone = await _w1(system, client, scale)
    more = (system.orchestrator("orchestrator-2"), system.worker("worker-2"))
    for service in more:
        await asyncio.to_thread(service.wait_until_ready)
    await _w1(system, client, scale)  # Partitions change hands when the first runs come.
    shared = await _w1(system, client, scale)
    for name in ("orchestrator-2", "worker-2"):
        await asyncio.to_thread(system.services.pop(name).stop)
    return {
        f"{CPU}, one of each": alone[CPU],
        f"{CPU}, two of each": shared[CPU],
        "CPU per run, ratio": shared[CPU] / alone[CPU],
        f"{SPEED}, one of each": alone[SPEED],
        f"{SPEED}, two of each": shared[SPEED],
    }


async def stored(system: System, client: Client, scale: Scale) -> Figures:
    """W1 over an empty database, and over one with many finished runs and their journals."""
    await asyncio.to_thread(_empty, system)
    empty = await _w1_often(system, client, scale)
    size = await asyncio.to_thread(_fill, system, scale.stored)
    full = await _w1_often(system, client, scale)
    await asyncio.to_thread(_empty, system)
    return {
        "runs stored": scale.stored,
        "bytes of disk per stored run": size / scale.stored,
        f"{SPEED}, empty": empty[SPEED],
        f"{SPEED}, full": full[SPEED],
        f"{SPEED}, ratio": full[SPEED] / empty[SPEED],
        f"{CPU}, empty": empty[CPU],
        f"{CPU}, full": full[CPU],
    }


async def _w1(system: System, client: Client, scale: Scale) -> Figures:
    return await throughput_of(system, lambda number: run_three(client, number), scale)


async def _w1_often(system: System, client: Client, scale: Scale) -> Figures:
    """Take the median of each figure: to fill the database takes too long for many rounds."""
    rounds = [await _w1(system, client, scale) for _ in range(ROUNDS)]
    return {figure: median(figures[figure] for figures in rounds) for figure in rounds[0]}


def _empty(system: System) -> None:
    """Forget every run. None is under way."""
    with system.mongo.client() as mongo:
        for name in ("runs", "journal"):
            collection = mongo.get_default_database("aiki")[name]
            collection.drop()
            if name in INDEXES:
                collection.create_indexes(list(INDEXES[name]))


def _fill(system: System, runs: int) -> int:
    """Insert finished runs with their journals, as the orchestrator writes them; tell the bytes of disk they take.

    They have come one after the other until now, and none expires before all is measured: whoever removes runs at the
    same time measures that.
    """
    template = _a_finished_run()
    began = datetime.now(UTC) - AGE
    with system.mongo.client(timeout=120) as mongo:
        database = mongo.get_default_database("aiki")
        before = _disk(database["runs"], database["journal"])
        for beginning in range(0, runs, RUNS_AT_ONCE):
            numbers = range(beginning, min(beginning + RUNS_AT_ONCE, runs))
            some = [_like(template, began + AGE * (number / runs)) for number in numbers]
            database["runs"].insert_many([run for run, _ in some], ordered=False)
            database["journal"].insert_many([entry for _, entries in some for entry in entries], ordered=False)
        mongo.admin.command("fsync")
        return _disk(database["runs"], database["journal"]) - before


def _a_finished_run() -> tuple[Document, Sequence[Document]]:
    """Make the documents of a run of three steps, and of its journal."""
    asked = requested(workflow=three_steps.name, version=three_steps.version, queue=three_steps.queue)
    run = after(None, replace(asked, client="client-0123456789ab"))
    run = after(run, started(run, worker="worker-0123456789ab"))
    entries = []
    for _ in range(STEPS):
        event = appended(run)
        entries += [journal_document(run, entry, prefix="", whole=run.last_seq) for entry in event.entries]
        run = after(run, event)
    return run_document(after(run, completed(run, STEPS))), entries


def _like(template: tuple[Document, Sequence[Document]], moment: datetime) -> tuple[Document, Sequence[Document]]:
    """Make the documents of another run, which came at *moment*: what is different in each is not what compresses."""
    run, entries = template
    run_id, incarnation, request = run_id_at(moment, os.urandom(10)), os.urandom(16).hex(), os.urandom(16).hex()
    later, place = moment - T0, entry_place(run_id, incarnation)
    own = {
        "_id": run_id,
        "slot": slot_of(run_id),
        "inc": incarnation,
        "requested_by": request,
        "cause": request,
        "pair": {"epoch": 1, "dispatch": f"{os.urandom(12).hex()}-0"},
    }
    return _moved(run, later) | own, [
        _moved(entry, later) | {"_id": f"{place}{entry['_id']}", "run": run_id} for entry in entries
    ]


def _moved(document: Document, later: timedelta) -> Document:
    """Have everything in *document* happen *later*, and each thing some milliseconds after the other."""
    return {
        name: value + later + MILLISECOND * number if isinstance(value, datetime) else value
        for number, (name, value) in enumerate(document.items())
    }


def _disk(*collections: Collection[Document]) -> int:
    """Tell what *collections* and their indexes take on disk."""
    total = 0
    for collection in collections:
        stats = collection.database.command("collStats", collection.name)
        total += int(stats["storageSize"]) + int(stats["totalIndexSize"])
    return total
