"""The broker is disposable: what MongoDB holds brings every queue back, from now or from an earlier point."""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from aiki import Client
from aiki.engine.journal import EntryKind
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.errors import AcceptanceTimeoutError, CompletionTimeoutError, RunNotFoundError
from aiki.sdk.handle import Handle
from aiki.testing.servers import MongoNode, RabbitNode
from tests.scenarios import app
from tests.scenarios.cluster import Cluster, eventually

PATIENCE = 60.0
STEPS = [f"step-{number}" for number in range(1, 6)]


async def until(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(eventually, condition, what)


async def until_stored(handle: Handle[Any], holds: Callable[[RunState], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds(await handle.get()):  # noqa: ASYNC110 - nobody announces every write of the store
            await asyncio.sleep(0.01)


def rebuild(cluster: Cluster) -> dict[str, int]:
    done = cluster.run("rebuild", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, int] = json.loads(done.stdout)
    return report


async def test_what_was_stored_survives_the_loss_of_the_broker_and_its_disk(
    breakable_cluster: Cluster, dedicated_rabbit: RabbitNode
) -> None:
    cluster = breakable_cluster
    orchestrator = cluster.orchestrator()
    cluster.worker("five-steps", "nap")
    cluster.world.hold("step-2")
    stored = app.count_to_three.with_options(confirm="stored")
    async with Client.connect(cluster.amqp_url) as client:
        held = [await app.five_steps.enqueue(client) for _ in range(5)]
        asleep = [await app.nap.enqueue(client, 2.0) for _ in range(3)]
        queued = [await stored.enqueue(client, number) for number in range(5)]
        await until(lambda: len(cluster.world.effects("step-2:begin")) == 5, "five runs to be held")
        await until(lambda: len(cluster.world.effects("before:end")) == 3, "three runs to fall asleep")
        for handle in asleep:
            await until_stored(handle, lambda run: run.status is RunStatus.SLEEPING)

        await asyncio.to_thread(orchestrator.stop)
        unstored = [await app.count_to_three.enqueue(client, number) for number in range(5)]
        async with Client.connect(cluster.amqp_url, timeout=0.5) as impatient:
            with pytest.raises(AcceptanceTimeoutError):  # Whoever wants to be sure of the store hears that he is not.
                await stored.enqueue(impatient, 1)
        await asyncio.to_thread(dedicated_rabbit.wipe)
        await asyncio.to_thread(dedicated_rabbit.start)
        report = await asyncio.to_thread(rebuild, cluster)
        await asyncio.to_thread(cluster.orchestrator)
        await asyncio.to_thread(cluster.worker, "count-to-three")
        cluster.world.release("step-2")

        assert [await one.wait_for_completion(timeout=PATIENCE) for one in held] == [STEPS] * 5
        assert [await one.wait_for_completion(timeout=PATIENCE) for one in asleep] == ["after"] * 3
        assert [await one.wait_for_completion(timeout=PATIENCE) for one in queued] == [3, 4, 5, 6, 7]
        assert len(cluster.world.effects("step-1:begin")) == 5, "what was recorded never runs again"
        assert len(cluster.world.effects("before:begin")) == 3
        for lost in unstored:
            await says_that_it_is_lost(client, lost)
        page = await client.find()
    assert {run.run_id for run in page.runs} == {*ids_of(held), *ids_of(asleep), *ids_of(queued)}
    assert report["unfinished"] == 13


def ids_of(handles: Iterable[Handle[Any]]) -> set[str]:
    return {handle.id for handle in handles}


async def says_that_it_is_lost(client: Client, handle: Handle[Any]) -> None:
    with pytest.raises(RunNotFoundError):
        await handle.get()
    with pytest.raises(RunNotFoundError):
        await client.handle(handle.id).wait_for_completion(timeout=PATIENCE)
    # Whoever started it cannot know that it will not be stored any more.
    with pytest.raises(CompletionTimeoutError):
        await handle.wait_for_completion(timeout=0.05)


@pytest.mark.parametrize("queues", ["kept", "lost"])
async def test_runs_go_on_from_an_earlier_point_to_which_mongodb_was_restored(
    breakable_cluster: Cluster, dedicated_rabbit: RabbitNode, dedicated_mongo: MongoNode, tmp_path: Path, queues: str
) -> None:
    cluster, world = breakable_cluster, breakable_cluster.world
    keyed = app.count_to_three.with_options(idempotency_key="the-later-one")
    orchestrator = cluster.orchestrator()
    victim = cluster.worker("five-steps")
    world.hold("step-2")
    async with Client.connect(cluster.amqp_url) as client:
        begun = await app.five_steps.enqueue(client)
        waiting = await app.count_to_three.with_options(confirm="stored").enqueue(client, 0)
        await until(lambda: world.effects("step-2:begin"), "the run to be held")
        await until_stored(begun, lambda run: run.last_seq == 1)
        dedicated_mongo.back_up(tmp_path / "backup")

        # What happens from here on is going to be forgotten.
        world.hold("step-4")
        await asyncio.to_thread(victim.kill)
        world.release("step-2")
        # With one slot it takes no other dispatch of the run: nothing but a refusal tells it that its own is void.
        holder = await asyncio.to_thread(cluster.worker, "five-steps", AIKI_CONCURRENCY="1")
        await asyncio.to_thread(cluster.worker, "count-to-three")
        await until(lambda: world.effects("step-4:begin"), "the run to come to its fourth step")
        assert await waiting.wait_for_completion(timeout=PATIENCE) == 3
        later = await keyed.enqueue(client, 1)
        assert await later.wait_for_completion(timeout=PATIENCE) == 4
        forgotten = (await begun.get()).pair

        await asyncio.to_thread(orchestrator.stop)
        await asyncio.to_thread(dedicated_mongo.restore, tmp_path / "backup")
        await asyncio.to_thread(dedicated_mongo.start)
        if queues == "lost":
            await asyncio.to_thread(dedicated_rabbit.wipe)
            await asyncio.to_thread(dedicated_rabbit.start)
        await asyncio.to_thread(cluster.orchestrator)
        report = await asyncio.to_thread(rebuild, cluster)
        await asyncio.to_thread(cluster.worker, "five-steps")
        await until(lambda: len(world.effects("step-4:begin")) == 2, "the run to come to its fourth step again")
        world.hold("step-5")
        world.release("step-4")
        if queues == "kept":
            await asyncio.to_thread(holder.wait_for_output, "worker.fenced")
        world.release("step-5")

        found = client.handle(begun.id, app.five_steps)
        assert await found.wait_for_completion(timeout=PATIENCE) == STEPS
        assert await client.handle(waiting.id).wait_for_completion(timeout=PATIENCE) == 3
        with pytest.raises(RunNotFoundError):
            await client.handle(later.id).get()
        again = await keyed.enqueue(client, 1)
        assert again.id == later.id
        assert await client.handle(again.id).wait_for_completion(timeout=PATIENCE) == 4, "its key starts clean"
        await went_on_from_there(found, forgotten)

    assert report["unfinished"] == 2
    begins = {name: len(world.effects(f"{name}:begin", run_id=begun.id)) for name in STEPS[:4]}
    # The second step was lost once with its worker, and once with its record.
    assert begins == {"step-1": 1, "step-2": 3, "step-3": 2, "step-4": 2}
    assert len(world.effects("step-5:end", run_id=begun.id)) == 1
    assert len(world.effects("add", run_id=waiting.id)) == 6


async def went_on_from_there(handle: Handle[list[str]], forgotten: Pair) -> None:
    state, journal = await handle.get(), await handle.journal()
    tasks = [entry.operation for entry in journal if entry.kind is EntryKind.TASK_COMPLETED]
    assert len(tasks) == len(set(tasks)) == 5
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    assert state.pair.dispatch_id != forgotten.dispatch_id
