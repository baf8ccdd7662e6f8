"""What a run may cost in messages, writes and reads. Whoever adds one finds out here, and changes it on purpose."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiki import RunStatus
from aiki.bootstrap import running_dev
from aiki.config import Settings
from aiki.sdk import publisher
from bench.counting import Engine, an_engine, calls_of_three_steps, cost_in_flight
from bench.workflows import fan_out, napping, three_steps


def other_calls(counts: Counter[str]) -> dict[str, int]:
    """Tell what was asked of broker and store beside events, commands and commits."""
    return {name: number for name, number in counts.items() if name.startswith(("broker.", "store."))}


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    # However slow the machine is, a start leaves with what follows it and never by itself.
    monkeypatch.setattr(publisher, "STARTED_SECONDS", 60.0)
    async with an_engine() as started:
        yield started


async def test_a_run_of_three_steps_costs_four_messages_of_events_and_two_commands(engine: Engine) -> None:
    with engine.counted() as counts:
        handle = await three_steps.enqueue(engine.client, 0)
        await handle.wait_for_completion(timeout=20)

    assert counts == {
        "event messages": 4,  # requested; started and the first step; the second; the third and completed
        "events": 6,
        "windows of commands": 2,
        "commands": 2,  # execute it; announce its outcome
        "commits": 4,
        "runs written": 3,  # requested, started, completed
        "entries written": 3,
        # On the wire with properties and frames, in the database before compression.
        "event bytes": 3365,
        "command bytes": 1082,
        "run bytes": 1722,
        "entry bytes": 1107,
    }


async def test_a_run_of_three_steps_in_the_embedded_engine_costs_four_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "STARTED_SECONDS", 60.0)
    async with running_dev(Settings(root=tmp_path), [three_steps]) as dev:
        await (await three_steps.enqueue(dev.client, 0)).wait_for_completion(timeout=20)
        before = dev.orchestrator.stats.commits
        await (await three_steps.enqueue(dev.client, 0)).wait_for_completion(timeout=20)

        # Requested; started and the first step; the second; the third and completed. Each is a flush to disk.
        assert dev.orchestrator.stats.commits - before == 4


async def test_a_run_of_three_steps_makes_no_more_calls_of_functions_than_it_did(engine: Engine) -> None:
    before = len(engine.messages)
    with engine.counted():
        await (await three_steps.enqueue(engine.client, 0)).wait_for_completion(timeout=20)

    calls = await calls_of_three_steps(engine, reading=engine.messages[before:])

    assert calls["reading calls"] <= 74
    # 5,391 with Python 3.11; another version, or another one of pydantic, makes a few more or less.
    assert calls["calls"] <= 5500


async def test_what_happens_together_is_recorded_together(engine: Engine) -> None:
    with engine.counted() as counts:
        handle = await fan_out.enqueue(engine.client, 100)
        await handle.wait_for_completion(timeout=20)

    assert counts["entries written"] == 100
    assert counts["event messages"] <= 5
    assert counts["commits"] <= 5
    assert other_calls(counts) == {}


async def test_a_run_that_wakes_is_read_for_whoever_asks_and_for_nobody_else(engine: Engine) -> None:
    handle = await napping.enqueue(engine.client, 3600.0)
    async for state in handle.watch():
        if state.status is RunStatus.SLEEPING:
            break

    with engine.counted() as counts:
        await handle.wake()
        await handle.wait_for_completion(timeout=20)

    # Whoever begins to wait for a run that may be over asks how it is.
    assert other_calls(counts) == {"broker.ask": 1, "broker.answer": 1, "store.load": 1}
    assert counts["commands"] == 2
    assert counts["entries written"] <= 4


async def test_a_thousand_runs_in_one_call_leave_in_full_messages(engine: Engine) -> None:
    with engine.counted() as counts:
        handles = await three_steps.enqueue_many(engine.client, range(1000))

    assert len(handles) == 1000
    assert counts["event messages"] < 40
    assert other_calls(counts) == {}


def test_runs_in_flight_that_are_asked_for_together_share_messages_and_commits() -> None:
    counts = cost_in_flight(600, at_once=200)

    # 23 and 11 when they were counted. Each in a partition of its own, they took 188 messages.
    assert counts["event messages"] <= 36
    # Stored message by message, they took 21 commits.
    assert counts["commits"] <= 16
    # Requested, and the rest at once: what is said on the way waits for company. Without that, 1,400.
    assert counts["runs written"] <= 1260
    assert counts["entries written"] == 1800
    assert counts["commands"] == 1200
    assert other_calls(counts) == {}


def test_runs_in_flight_in_all_partitions_share_commits() -> None:
    counts = cost_in_flight(600, at_once=200, keyed=True)

    # 20 when they were counted, and 80 with a commit for each partition.
    assert counts["commits"] <= 36
    assert counts["runs written"] <= 1290
    # 647: one for the question of each client, and one for each batch, as a run with a key may be known already.
    assert counts["store.load"] <= 720
