"""Runs that execute for longer than a command may be held, on real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aio_pika
import pytest
from yarl import URL

from aiki import Client, Worker
from aiki.errors import RunCancelledError
from aiki.sdk.handle import Handle
from aiki.testing.chaos.gates import Gate
from aiki.worker.service import WorkerSettings
from tests.scenarios.cluster import Cluster
from tests.worker.support import listening

PATIENCE = 30.0
SLOTS = 4


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - some of it happens in other processes
            await asyncio.sleep(0.01)


@asynccontextmanager
async def a_gate(url: str) -> AsyncIterator[tuple[Gate, str]]:
    """A way to the broker that can be shut, and its URL."""
    gate = await Gate(URL(url).port or 5672).start()
    try:
        yield gate, str(URL(url).with_host("127.0.0.1").with_port(gate.port))
    finally:
        await gate.close()


async def waiting_in(url: str, queue: str) -> int:
    """How many messages nobody has been given."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def test_runs_under_leases_keep_to_the_slots_and_hear_what_was_said_when_nobody_could_reach_them(
    cluster: Cluster,
) -> None:
    cluster.orchestrator()
    settings = WorkerSettings(lease_after=1.0, lease=60.0)
    async with (
        a_gate(cluster.amqp_url) as (gate, way),
        Client.connect(cluster.amqp_url) as client,
        Client.connect(way, listen=False) as own,
        Worker(own, [listening], settings=settings, max_concurrent_runs=SLOTS, shutdown_grace=0) as worker,
    ):
        handles: dict[str, Handle[str]] = {}
        for _ in range(5 * SLOTS):
            handle = await listening.enqueue(client)
            handles[handle.id] = handle
        await until(lambda: worker._crew.leased == SLOTS)
        held = [handles.pop(run_id) for run_id in worker.held_runs]
        assert len(held) == SLOTS
        assert await waiting_in(cluster.amqp_url, listening.queue) == 4 * SLOTS

        gate.shut()
        await held[0].cancel()
        for handle in held[1:]:
            await handle.send("go", "said while away")
        for handle in held:
            await _is_heard(handle)
        gate.reopen()

        with pytest.raises(RunCancelledError):
            await held[0].wait_for_completion(timeout=PATIENCE)
        assert [await one.wait_for_completion(timeout=PATIENCE) for one in held[1:]] == ["said while away"] * 3
        assert [(await one.get()).pair.epoch for one in held] == [1] * SLOTS

        # What they leave is taken by others.
        for handle in handles.values():
            await handle.send("go", "said later")
        ends = [handle.wait_for_completion(timeout=PATIENCE) for handle in handles.values()]
        assert await asyncio.gather(*ends) == ["said later"] * 4 * SLOTS


async def _is_heard(handle: Handle[str]) -> None:
    """Wait until what was said is stored with the run, which cannot hear it."""
    async with asyncio.timeout(PATIENCE):
        while not ((run := await handle.get()).cancel_requested or run.inbox):
            pass
