"""Replay is quick enough to be done for every dispatch.

Measured in time of the processor; the bounds leave a slow one several times the usual.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.payload import Payload, digest
from aiki.engine.state import Pair
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow
from aiki.worker.history import History
from aiki.worker.replay import Replay

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@task
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def one_after_the_other(run: Run, steps: int) -> int:
    total = 0
    for n in range(steps):
        total += await add.run(run, n, 1)
    return total


@workflow
async def all_at_once(run: Run, steps: int) -> int:
    return sum(await asyncio.gather(*[add.run(run, n, 1) for n in range(steps)]))


def recorded(steps: int) -> list[JournalEntry]:
    return [
        JournalEntry(
            seq=n + 1,
            epoch=1,
            at=BEGAN + timedelta(milliseconds=n),
            kind=EntryKind.TASK_COMPLETED,
            operation=f"task:add:{digest(add.signature.dump((n, 1), {}))}#1",
            payload=Payload("1"),
        )
        for n in range(steps)
    ]


def replay(flow: Workflow[[int], int], entries: list[JournalEntry]) -> None:
    command = ExecuteRun(
        queue=flow.queue,
        run_id="run",
        incarnation="incarnation",
        pair=Pair(1, "dispatch"),
        workflow=flow.name,
        version=flow.version,
        input=flow.signature.dump((len(entries),), {}),
        now=BEGAN,
        created_at=BEGAN,
        base_seq=len(entries),
    )
    replay = Replay(command, flow, History(entries), began_at=BEGAN)
    replay.drive(go_on=lambda: True)
    assert replay.end is not None
    assert replay.end.result == f"{len(entries)}"
    replay.discard()


def quickest(call: Callable[[], None], *, times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


def test_five_thousand_entries_are_replayed_in_a_blink() -> None:
    entries = recorded(5_000)

    assert quickest(lambda: replay(one_after_the_other, entries)) < 0.5
    assert quickest(lambda: replay(all_at_once, entries)) < 0.8


def test_an_entry_costs_the_same_in_a_long_journal_as_in_a_short_one() -> None:
    short, long = recorded(500), recorded(5_000)

    for flow in (one_after_the_other, all_at_once):
        ratio = quickest(lambda: replay(flow, long)) / quickest(lambda: replay(flow, short), times=9)  # noqa: B023
        assert ratio < 40, flow
