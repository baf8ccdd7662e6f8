"""A broker that is short of memory or disk space, and disks that really run full, under either server.

What must hold: who cannot be served is told why, nothing that was confirmed is lost, and all of it ends
well once there is room again.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError

from aiki import Client
from aiki.errors import AcceptanceTimeoutError, EnqueueTimeoutError, RunNotFoundError
from aiki.sdk.handle import Handle
from aiki.testing.servers import MongoNode, RabbitNode
from aiki.testing.servers.disks import SmallDisk
from tests.scenarios import app
from tests.scenarios.cluster import Cluster, a_cluster, eventually

PATIENCE = 90.0
MEBIBYTE = 2**20

# MongoDB allocates 300 MiB of journal beforehand; RabbitMQ's alarm is set to 100 MB.
MONGODB_BYTES = 350 * MEBIBYTE
RABBITMQ_BYTES = 200 * MEBIBYTE

AT_ONCE = 20
TAKEN_MAX = 5_000


@pytest.fixture
def small_mongo(tmp_path: Path) -> Iterator[tuple[MongoNode, SmallDisk]]:
    node = MongoNode(tmp_path / "mongo")
    with SmallDisk(node.folder / "data", size_bytes=MONGODB_BYTES) as node.disk, node:
        yield node, node.disk


@pytest.fixture
def small_rabbit(tmp_path: Path) -> Iterator[tuple[RabbitNode, SmallDisk]]:
    node = RabbitNode(tmp_path / "rabbit")
    with SmallDisk(node.folder / "mnesia", size_bytes=RABBITMQ_BYTES) as node.disk, node:
        yield node, node.disk


async def all_end_well(handles: list[Handle[int]]) -> None:
    """Every run of the numbers from 0 on has its result, and each of its tasks once on record."""
    results = await asyncio.gather(*(handle.wait_for_completion(timeout=PATIENCE) for handle in handles))
    assert results == [number + 3 for number in range(len(handles))]
    for handle in handles:
        assert [entry.seq for entry in await handle.journal()] == [1, 2, 3]


@pytest.mark.servers
async def test_a_full_disk_under_mongodb_delays_runs_and_loses_none(
    tmp_path: Path, amqp_url: str, small_mongo: tuple[MongoNode, SmallDisk]
) -> None:
    mongo, disk = small_mongo
    with a_cluster(tmp_path / "cluster", amqp_url=amqp_url, mongodb_url=mongo.url, database="aiki") as cluster:
        orchestrator = cluster.orchestrator()
        cluster.worker("count-to-three", "five-steps")
        async with Client.connect(amqp_url) as client, Client.connect(amqp_url, timeout=1.0) as impatient:
            before = await app.count_to_three.enqueue_many(client, range(AT_ONCE))
            await all_end_well(before)
            cluster.world.hold("step-3")
            held = await app.five_steps.enqueue(client)
            await until_marked(cluster, held, "step-3:begin")
            disk.fill()
            await asyncio.to_thread(write_everything_down, mongo)
            assert not mongo.is_running, "it ends itself rather than to confirm what it cannot keep"

            waiting = await app.count_to_three.enqueue_many(client, range(AT_ONCE))
            with pytest.raises(AcceptanceTimeoutError, match="safe in the broker, but no orchestrator has stored it"):
                await app.count_to_three.with_options(confirm="stored").enqueue(impatient, 0)
            await asyncio.to_thread(orchestrator.wait_for_output, "MongoDB cannot be reached")
            cluster.world.release("step-3")
            await until_marked(cluster, held, "step-5:end")
            disk.make_room()
            await asyncio.to_thread(mongo.start)

            await all_end_well(waiting)
            await all_end_well(before)
            assert await held.wait_for_completion(timeout=PATIENCE) == [f"step-{number}" for number in range(1, 6)]
            assert len(cluster.world.effects("step-1:begin")) == 1


def write_everything_down(mongo: MongoNode) -> None:
    """Ask for what MongoDB does once a minute anyway."""
    with mongo.client() as client, suppress(PyMongoError):
        client.admin.command("fsync")
    eventually(lambda: not mongo.is_running, "MongoDB to find its disk full")


async def until_marked(cluster: Cluster, handle: Handle[list[str]], name: str) -> None:
    await asyncio.to_thread(eventually, lambda: cluster.world.effects(name, run_id=handle.id), f"the mark {name}")


@pytest.mark.servers
async def test_a_broker_that_is_short_of_memory_or_disk_space_says_so_and_loses_nothing(
    tmp_path: Path, mongodb_url: str, mongodb_database: str, small_rabbit: tuple[RabbitNode, SmallDisk]
) -> None:
    rabbit, disk = small_rabbit
    folder, url = tmp_path / "cluster", rabbit.url
    with a_cluster(folder, amqp_url=url, mongodb_url=mongodb_url, database=mongodb_database) as cluster:
        cluster.orchestrator()
        cluster.worker("count-to-three", "five-steps")
        async with Client.connect(url) as client, Client.connect(url, timeout=1.5) as impatient:
            cluster.world.hold("step-3")
            held = await app.five_steps.enqueue(client)
            await until_marked(cluster, held, "step-3:begin")

            await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
            accepted, refused = await enqueue_until_refused(impatient)
            with pytest.raises(EnqueueTimeoutError) as nothing_sent:
                await app.count_to_three.enqueue(impatient, 0)
            await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")
            await all_end_well(accepted)

            disk.fill(leaving=MEBIBYTE)
            await asyncio.to_thread(look_at_the_disk, rabbit)
            accepted, also_refused = await enqueue_until_refused(impatient)
            cluster.world.release("step-3")
            disk.make_room()
            await asyncio.to_thread(look_at_the_disk, rabbit)
            await all_end_well(accepted)
            assert await held.wait_for_completion(timeout=PATIENCE) == [f"step-{number}" for number in range(1, 6)]
            assert len(cluster.world.effects("step-1:begin")) == 1

            for error in (refused, nothing_sent.value, also_refused):
                assert "RabbitMQ is short of memory or disk space and takes no messages" in str(error)
            # What was on its way when the broker stopped reading may arrive; from then on nothing leaves the client.
            assert nothing_sent.value.certain
            with pytest.raises(RunNotFoundError):
                await client.get(nothing_sent.value.run_id or "")


@pytest.mark.servers
async def test_a_full_disk_under_rabbitmq_loses_nothing_that_was_confirmed(
    tmp_path: Path, mongodb_url: str, mongodb_database: str, small_rabbit: tuple[RabbitNode, SmallDisk]
) -> None:
    rabbit, disk = small_rabbit
    folder, url = tmp_path / "cluster", rabbit.url
    with a_cluster(folder, amqp_url=url, mongodb_url=mongodb_url, database=mongodb_database) as cluster:
        orchestrator = cluster.orchestrator()
        cluster.worker("count-to-three")
        async with Client.connect(url) as client, Client.connect(url, timeout=1.5) as impatient:
            await all_end_well([await app.count_to_three.enqueue(client, 0)])
            await asyncio.to_thread(orchestrator.stop)  # What is confirmed from here on is in the broker only.
            await asyncio.to_thread(rabbit.settle)

            # Without the alarm, which is what keeps a real broker out of this.
            await asyncio.to_thread(rabbit.ctl, "set_disk_free_limit", "1000")
            disk.fill()
            accepted, refused = await enqueue_until_refused(impatient)
            disk.make_room()
            await asyncio.to_thread(rabbit.kill)  # It does not recover by itself.
            await asyncio.to_thread(rabbit.start)
            await asyncio.to_thread(cluster.orchestrator)

            await all_end_well(accepted)
            assert "was not confirmed within" in str(refused)


async def enqueue_until_refused(client: Client) -> tuple[list[Handle[int]], EnqueueTimeoutError]:
    """The broker may take a little before it begins to refuse, and what it confirms counts."""
    accepted: list[Handle[int]] = []
    while len(accepted) < TAKEN_MAX:
        try:
            accepted.append(await app.count_to_three.enqueue(client, len(accepted)))
        except EnqueueTimeoutError as error:
            return accepted, error
    raise AssertionError(f"{TAKEN_MAX} runs were taken, and none was refused")


def look_at_the_disk(rabbit: RabbitNode) -> None:
    """Have the broker look now how much room there is; by itself it does so every ten seconds."""
    rabbit.evaluate("rabbit_disk_monitor:set_disk_free_limit(100000000)")
