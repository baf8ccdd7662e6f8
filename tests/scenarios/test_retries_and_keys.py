"""Retries come back through their queues as the policy says; a key stands for one run, whoever asks."""

import asyncio
from datetime import timedelta

import pytest

from aiki import Client, IdempotencyConflictError
from aiki.engine.journal import EntryKind
from aiki.engine.payload import digest
from tests.scenarios import app
from tests.scenarios.cluster import Cluster

PATIENCE = 60.0


async def test_attempts_delays_and_errors_are_recorded_as_the_policy_says(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.worker("persistent")
    async with Client.connect(cluster.amqp_url) as client:
        handle = await app.persistent.enqueue(client)
        assert await handle.wait_for_completion(timeout=PATIENCE) == 4
        journal = await handle.journal()

    failed = [entry for entry in journal if entry.kind is EntryKind.ATTEMPT_FAILED]
    assert [entry.attempt for entry in failed] == [1, 2, 3]
    for entry, delay_ms in zip(failed, (398, 794, 1585), strict=True):
        assert entry.due_at is not None
        assert entry.due_at - entry.at == timedelta(milliseconds=delay_ms)
        assert entry.failure is not None
        assert entry.failure.type.endswith("TooBusyError")
        assert entry.failure.message == f"attempt {entry.attempt} found no line"

    effects = cluster.world.effects("flaky")
    assert [effect.attempt for effect in effects] == [1, 2, 3, 4]
    assert len({effect.key for effect in effects}) == 1, "the idempotency key is the same on each attempt"
    for earlier, later, delay in zip(effects, effects[1:], (0.398, 0.794, 1.585), strict=False):
        assert later.at - earlier.at >= delay, "no attempt comes before it is due"


async def test_ten_clients_with_one_key_share_one_run(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.orchestrator()
    cluster.worker("count-to-three")
    keyed = app.count_to_three.with_options(idempotency_key="order-4711")

    async def ask() -> tuple[str, int]:
        async with Client.connect(cluster.amqp_url) as client:
            handle = await keyed.enqueue(client, 1)
            return handle.id, await handle.wait_for_completion(timeout=PATIENCE)

    answers = await asyncio.gather(*(ask() for _ in range(10)))

    assert len({run_id for run_id, _ in answers}) == 1
    assert {result for _, result in answers} == {4}
    assert len(cluster.world.effects("add")) == 3


async def test_one_key_with_another_input_is_an_error_that_shows_both_hashes(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.worker("count-to-three")
    keyed = app.count_to_three.with_options(idempotency_key="order-4712")
    async with Client.connect(cluster.amqp_url) as client:
        first = await keyed.enqueue(client, 1)
        with pytest.raises(IdempotencyConflictError) as caught:
            await keyed.enqueue(client, 2)
        existing = await keyed.with_options(on_conflict="use_existing").enqueue(client, 2)

        assert existing.id == first.id
        assert await existing.wait_for_completion(timeout=PATIENCE) == 4
        state = await first.get()

    other = app.count_to_three.arguments(2).payload
    assert state.input_hash in str(caught.value)
    assert digest(other) in str(caught.value)
