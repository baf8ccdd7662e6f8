"""The limit is one only as long as its messages and documents are those of Aiki."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import bson
import pytest

from aiki import Worker, embedded
from bench.counting import an_engine
from bench.load import Scale
from bench.raw.inside import embedded_limit, entry_row, run_row
from bench.raw.shape import (
    COMMAND_BYTES,
    COMPLETED,
    EVENT_BYTES,
    NOTICE_BYTES,
    RECORDED,
    REQUESTED,
    STARTED,
    Said,
    entry_document,
    heard,
    run_document,
    said,
)
from bench.workflows import fan_out, three_steps


async def test_the_messages_and_documents_of_the_limit_are_as_large_as_those_of_a_run() -> None:
    async with an_engine() as engine:
        before = len(engine.messages)
        with engine.counted() as counts:
            await (await three_steps.enqueue(engine.client, 0)).wait_for_completion(timeout=20)
    bodies = {
        kind: sum(len(message.body) for message in engine.messages[before:] if message.exchange == exchange)
        for kind, exchange in (("events", "aiki.events"), ("commands", "aiki.commands"), ("notices", "aiki.notices"))
    }

    events = sum(EVENT_BYTES[kind] for kind in (REQUESTED, STARTED, RECORDED, RECORDED, RECORDED, COMPLETED))
    assert bodies["events"] == pytest.approx(events, rel=0.05)
    assert bodies["commands"] == pytest.approx(COMMAND_BYTES, rel=0.05)
    assert bodies["notices"] == pytest.approx(NOTICE_BYTES, rel=0.05)
    assert counts["run bytes"] == pytest.approx(_bytes(run_document(1, revision) for revision in (1, 2, 3)), rel=0.05)
    assert counts["entry bytes"] == pytest.approx(_bytes(entry_document(1, seq) for seq in (1, 2, 3)), rel=0.05)


async def test_parallel_steps_of_the_limit_take_as_many_bytes_as_those_of_a_run() -> None:
    async with an_engine() as engine:
        before = len(engine.messages)
        await (await fan_out.enqueue(engine.client, 100)).wait_for_completion(timeout=20)
    events = sum(len(message.body) for message in engine.messages[before:] if message.exchange == "aiki.events")

    kinds = [(REQUESTED, 0), (STARTED, 0), *((RECORDED, seq) for seq in range(1, 101)), (COMPLETED, 0)]
    assert events == pytest.approx(sum(len(said(Said(kind, 1, -100, seq))) for kind, seq in kinds), rel=0.05)


def test_what_the_limit_says_is_heard() -> None:
    events = [Said(REQUESTED, 7, 3), Said(RECORDED, 8, -100, 99)]

    body = b"".join(said(event) for event in events)

    assert heard(body) == events


async def test_the_rows_of_the_embedded_limit_are_as_large_as_those_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "engine.db"
    async with embedded(file) as client, Worker(client, workflows=[three_steps]):
        await (await three_steps.enqueue(client, 0)).wait_for_completion(timeout=20)
    with closing(connect(file)) as connection:
        (run,) = connection.execute("SELECT * FROM runs")
        entries = connection.execute("SELECT * FROM journal").fetchall()

    written = [run_row(0, 3), *(entry_row(0, seq) for seq in (1, 2, 3))]
    assert [len(row) for row in written] == [len(row) for row in (run, *entries)]
    for row, there in zip(written, (run, *entries), strict=True):
        assert len(row[-1]) == pytest.approx(len(there[-1]), rel=0.05)


def test_the_embedded_limit_writes_its_runs(tmp_path: Path) -> None:
    figures = embedded_limit(tmp_path, Scale(0.01))

    assert figures["runs/s"] > 0
    (file,) = tmp_path.iterdir()
    with closing(connect(file)) as connection:
        counts = connection.execute("SELECT status, revision, count(*) FROM runs GROUP BY 1, 2").fetchall()
        entries = connection.execute("SELECT count(*) FROM journal").fetchall()
    runs = sum(number for _, _, number in counts)
    assert {(status, revision) for status, revision, _ in counts} == {("completed", 3)}
    assert entries == [(3 * runs,)]


def _bytes(documents: Iterable[dict[str, object]]) -> int:
    return sum(len(bson.encode(document)) for document in documents)
