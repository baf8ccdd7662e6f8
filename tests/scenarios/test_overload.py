"""Far more work than can be done at once: it waits in the broker, and in nobody's memory."""

from aiki import Client
from bench.overload import Peaks, overload
from tests.scenarios.cluster import Cluster

RUNS = 1_500

# What is in hand at once: batches of events, the runs of the cache, the slots of the worker.
GROWTH_MIB_MAX = 60.0


async def test_a_slow_worker_makes_runs_wait_and_no_process_grow(cluster: Cluster) -> None:
    cluster.environment["AIKI_CONCURRENCY"] = "20"
    orchestrator = cluster.orchestrator()
    worker = cluster.worker("slow", app="bench.overload")
    async with Client.connect(cluster.amqp_url) as client:
        await overload(client, 100)
        peaks = Peaks({"orchestrator": orchestrator.pid, "worker": worker.pid})

        async with peaks.watched():
            await overload(client, RUNS)

    assert max(peaks.growth.values()) < GROWTH_MIB_MAX, peaks.growth
