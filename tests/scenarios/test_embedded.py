"""The scenarios that make sense without processes, on the embedded engine: the same promises, no servers."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from aiki import (
    Client,
    IdempotencyConflictError,
    InvalidArgumentsError,
    PayloadTooLargeError,
    RunFailedError,
    StoreUnavailableError,
    Worker,
    embedded,
)
from aiki.engine.journal import EntryKind
from aiki.engine.status import RunStatus
from tests.scenarios import app
from tests.scenarios.effects import World
from tests.scenarios.versions import EDITION_VARIABLE, evolving

PATIENCE = 60.0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose tasks run in this process."""
    world = World(tmp_path / "world")
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    return world


async def test_attempts_delays_and_errors_are_recorded_as_the_policy_says(world: World) -> None:
    async with embedded() as client, Worker(client, workflows=[app.persistent]):
        handle = await app.persistent.enqueue(client)
        assert await handle.wait_for_completion(timeout=PATIENCE) == 4
        journal = await handle.journal()

    failed = [entry for entry in journal if entry.kind is EntryKind.ATTEMPT_FAILED]
    assert [entry.attempt for entry in failed] == [1, 2, 3]
    for entry, delay_ms in zip(failed, (398, 794, 1585), strict=True):
        assert entry.due_at is not None
        assert entry.due_at - entry.at == timedelta(milliseconds=delay_ms)
    assert [effect.attempt for effect in world.effects("flaky")] == [1, 2, 3, 4]


async def test_one_key_stands_for_one_run(world: World) -> None:
    keyed = app.count_to_three.with_options(idempotency_key="order-4711")
    async with embedded() as client, Worker(client, workflows=[app.count_to_three]):
        handles = await asyncio.gather(*(keyed.enqueue(client, 1) for _ in range(10)))
        results = [await handle.wait_for_completion(timeout=PATIENCE) for handle in handles]
        with pytest.raises(IdempotencyConflictError):
            await keyed.enqueue(client, 2)

    assert len({handle.id for handle in handles}) == 1
    assert results == [4] * 10
    assert len(world.effects("add")) == 3


async def _suspended(client: Client, path: Path) -> str:
    async with Worker(client, workflows=[evolving]):
        handle = await evolving.enqueue(client)
        async for state in handle.watch():
            if state.status is RunStatus.SLEEPING:
                return handle.id
    raise AssertionError(f"the run of {path} did not sleep")


@pytest.mark.parametrize(
    ("edition", "result"),
    [
        ("reordered", ["c", "a", "b", "d"]),
        ("removed", ["a", "c", "d"]),
        ("appended", ["a", "b", "c", "d", "e"]),
    ],
)
async def test_what_is_safe_to_change_goes_on_in_the_next_process(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edition: str, result: list[str]
) -> None:
    file = tmp_path / "runs.db"
    async with embedded(file) as client:
        run_id = await _suspended(client, file)
    monkeypatch.setenv(EDITION_VARIABLE, edition)

    async with embedded(file) as client, Worker(client, workflows=[evolving]):
        assert await client.handle(run_id).wait_for_completion(timeout=PATIENCE) == result

    for name in ("a", "b", "c"):
        assert len(world.effects(f"{name}:begin")) == 1


@pytest.mark.parametrize("edition", ["inserted", "input-changed", "renamed"])
async def test_what_is_not_safe_to_change_fails_before_anything_new_executes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edition: str
) -> None:
    file = tmp_path / "runs.db"
    async with embedded(file) as client:
        run_id = await _suspended(client, file)
    monkeypatch.setenv(EDITION_VARIABLE, edition)

    async with embedded(file) as client, Worker(client, workflows=[evolving]):
        with pytest.raises(RunFailedError, match="NonDeterminismError"):
            await client.handle(run_id).wait_for_completion(timeout=PATIENCE)

    begun = [effect.name for effect in world.effects() if effect.name.endswith(":begin")]
    assert begun == ["a:begin", "b:begin", "c:begin"]


async def test_bad_input_is_refused_before_anything_is_kept(world: World) -> None:
    async with embedded() as client:
        with pytest.raises(InvalidArgumentsError, match="start"):
            await app.count_to_three.enqueue(client, cast(Any, "many"))
        with pytest.raises(PayloadTooLargeError):
            await client.enqueue("anything", {"text": "x" * 2_000_000}, version="1.0.0")
        assert (await client.find()).runs == ()


async def test_two_engines_on_one_file_would_fight_and_the_second_is_told(tmp_path: Path) -> None:
    async with embedded(tmp_path / "runs.db"):
        with pytest.raises(StoreUnavailableError):
            async with embedded(tmp_path / "runs.db"):
                pass


async def test_a_thousand_runs_complete_once(world: World, tmp_path: Path) -> None:
    async with embedded(tmp_path / "runs.db") as client, Worker(client, workflows=[app.count_to_three]):
        handles = await app.count_to_three.enqueue_many(client, range(1000))
        results = await asyncio.gather(*(handle.wait_for_completion(timeout=PATIENCE) for handle in handles))

    assert results == [number + 3 for number in range(1000)]
    assert len(world.effects("add")) == 3000
