"""Rows that need no servers: the embedded engine, and replay by itself."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiki import Client, Worker, embedded
from aiki.cli.measuring import in_flight, one_at_a_time, percentile
from aiki.cli.services import settle_down
from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.payload import digest, dump_payload
from aiki.engine.state import Pair
from aiki.worker.history import History
from aiki.worker.replay import Replay
from bench.counting import cost_of_three_steps
from bench.figures import RAW, Figures
from bench.load import IN_FLIGHT, Scale
from bench.raw.inside import embedded_limit, embedded_parts
from bench.workflows import long_count, three_steps

__all__ = ["ROWS_ALONE"]

LENGTHS = (10, 100, 1000, 5000)


def embedded_engine(folder: Path, scale: Scale) -> Figures:
    """W1 on the embedded engine, kept in a file."""
    return asyncio.run(_embedded(folder / f"engine-{time.monotonic_ns()}.db", scale))


async def _embedded(file: Path, scale: Scale) -> Figures:
    async with embedded(file) as client, Worker(client, workflows=[three_steps], max_concurrent_runs=IN_FLIGHT):
        await _one(client, 0)
        with _settled():
            cpu = time.process_time()
            loaded = await in_flight(lambda number: _one(client, number), times=scale.runs, at_once=IN_FLIGHT)
            taken = time.process_time() - cpu
            alone = await one_at_a_time(lambda number: _one(client, number), times=scale.one_at_a_time)
    return {
        "runs/s": loaded.per_second,
        "CPU s per 1,000 runs": taken / scale.runs * 1000,
        "one at a time p50 ms": percentile(alone.taken, 0.5) * 1000,
        "one at a time p99 ms": percentile(alone.taken, 0.99) * 1000,
    }


@contextmanager
def _settled() -> Iterator[None]:
    """Collect garbage as `aiki dev` does."""
    thresholds = gc.get_threshold()
    settle_down()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _one(client: Client, number: int) -> None:
    handle = await three_steps.enqueue(client, number)
    await handle.wait_for_completion(timeout=120)


def replay(_folder: Path, _scale: Scale) -> Figures:
    """Replay a recorded run up to its end, by the length of its history."""
    return {f"{length:,} entries ms": _replayed(length) for length in LENGTHS}


def _replayed(length: int) -> float:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    entries = [
        JournalEntry(
            seq=seq,
            epoch=1,
            at=at + timedelta(milliseconds=seq),
            kind=EntryKind.TASK_COMPLETED,
            operation=f"task:add:{digest(dump_payload({'n': seq - 1}))}#1",
            attempt=1,
            payload=dump_payload(seq),
        )
        for seq in range(1, length + 1)
    ]
    command = ExecuteRun(
        queue=long_count.queue,
        run_id="replayed",
        incarnation="one",
        pair=Pair(2, "two"),
        workflow=long_count.name,
        version=long_count.version,
        input=dump_payload({"steps": length}),
        now=at,
        created_at=at,
        base_seq=length,
    )
    began = time.perf_counter()
    replayed = Replay(command, long_count, History(entries), began_at=at)
    replayed.drive(go_on=lambda: True)
    taken = time.perf_counter() - began
    assert replayed.end is not None
    assert replayed.end.result == dump_payload(length)
    return taken * 1000


def counts(_folder: Path, _scale: Scale) -> Figures:
    """What a run of W1 costs by itself, counted; the same on every machine."""
    return {f"{name} per run": number for name, number in asyncio.run(cost_of_three_steps()).items()}


ROWS_ALONE: Mapping[str, Callable[[Path, Scale], Figures]] = {
    "embedded": embedded_engine,
    "replay": replay,
    "counts": counts,
    f"{RAW}-embedded": embedded_limit,
    f"{RAW}-embedded-parts": embedded_parts,
}
