"""Orchestrators are killed, RabbitMQ and MongoDB restarted, while runs are in flight."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from aiki import Client
from aiki.testing.servers import MongoNode, RabbitNode
from tests.scenarios import app
from tests.scenarios.cluster import Cluster, eventually

PATIENCE = 120.0


def _has_done(cluster: Cluster, tasks: int) -> bool:
    return len(cluster.world.effects("add")) >= tasks


async def test_every_run_completes_once_though_the_orchestrator_is_killed_ten_times(cluster: Cluster) -> None:
    runs, kills = 500, 10
    chance = random.Random()  # The moments differ each time; whatever they are, the outcome must not.
    cluster.worker("count-to-three")
    orchestrator = cluster.orchestrator()
    async with Client.connect(cluster.amqp_url) as client:
        handles = await app.count_to_three.enqueue_many(client, range(runs))
        for _ in range(kills):
            seen = len(cluster.world.effects("add"))
            goal = min(seen + chance.randint(1, 100), 3 * runs)
            await asyncio.to_thread(eventually, partial(_has_done, cluster, goal), f"{goal} tasks")
            await asyncio.to_thread(orchestrator.kill)
            orchestrator = await asyncio.to_thread(cluster.orchestrator)
        results = await asyncio.gather(*(handle.wait_for_completion(timeout=PATIENCE) for handle in handles))
        journals = [await handle.journal() for handle in handles]
        again = [handle for handle in handles if len(cluster.world.effects("add", run_id=handle.id)) > 3]
        epochs = [(await handle.get()).pair.epoch for handle in again]

    assert results == [number + 3 for number in range(runs)]
    for journal in journals:
        assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
        assert Counter(entry.operation for entry in journal if entry.operation).most_common(1)[0][1] == 1
    # A task may run twice only where nobody could know whether a dispatch had been sent, and it was replaced: what
    # the replaced one did was refused, and the record has each task once.
    assert all(epoch > 1 for epoch in epochs), epochs
    assert len(again) <= kills * 20, "these are the few runs that were being dispatched when the process died"


async def _while_runs_are_in_flight(cluster: Cluster, disturb: Callable[[], Awaitable[None]]) -> None:
    cluster.orchestrator()
    cluster.worker("five-steps", "nap")
    async with Client.connect(cluster.amqp_url) as client:
        cluster.world.hold("step-2")
        steps = [await app.five_steps.enqueue(client) for _ in range(10)]
        naps = [await app.nap.enqueue(client, 3.0) for _ in range(10)]
        await asyncio.to_thread(
            eventually,
            lambda: len(cluster.world.effects("step-2:begin")) == len(cluster.world.effects("before:end")) == 10,
            "all runs to be under way",
        )

        await disturb()
        cluster.world.release("step-2")

        assert await asyncio.gather(*(handle.wait_for_completion(timeout=PATIENCE) for handle in naps)) == [
            "after"
        ] * len(naps)
        for result in await asyncio.gather(*(handle.wait_for_completion(timeout=PATIENCE) for handle in steps)):
            assert result == [f"step-{number}" for number in range(1, 6)]
        assert len(cluster.world.effects("step-1:begin")) == 10, "what was recorded never runs again"
        assert len(cluster.world.effects("before:begin")) == 10
        late = await app.nap.enqueue(client, 0.01)
        assert await late.wait_for_completion(timeout=PATIENCE) == "after", "the client found back as well"


async def test_rabbitmq_may_be_restarted_while_runs_are_in_flight(
    breakable_cluster: Cluster, dedicated_rabbit: RabbitNode
) -> None:
    async def restart() -> None:
        await asyncio.to_thread(dedicated_rabbit.restart)

    await _while_runs_are_in_flight(breakable_cluster, restart)


async def test_rabbitmq_may_be_killed_while_runs_are_in_flight(
    breakable_cluster: Cluster, dedicated_rabbit: RabbitNode
) -> None:
    async def kill() -> None:
        # RabbitMQ 3.10 writes the register of its quorum queues down every half second only: a node that is killed
        # before forgets queues that were declared just now. That is another story than this one.
        await asyncio.to_thread(dedicated_rabbit.settle)
        await asyncio.to_thread(dedicated_rabbit.kill)
        await asyncio.to_thread(dedicated_rabbit.start)

    await _while_runs_are_in_flight(breakable_cluster, kill)


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_mongodb_may_go_away_while_runs_are_in_flight(
    breakable_cluster: Cluster, dedicated_mongo: MongoNode, how: str
) -> None:
    async def disturb() -> None:
        if how == "killed":
            await asyncio.to_thread(dedicated_mongo.kill)
            breakable_cluster.world.release("step-2")  # Tasks go on: nothing between two of them needs the store.
            await asyncio.to_thread(
                eventually,
                lambda: len(breakable_cluster.world.effects("step-5:end")) == 10,
                "the tasks to go on without the store",
            )
            await asyncio.to_thread(dedicated_mongo.start)
        else:
            await asyncio.to_thread(dedicated_mongo.restart)

    await _while_runs_are_in_flight(breakable_cluster, disturb)
