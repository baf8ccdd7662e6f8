"""Workers are killed, frozen, and killed by the very runs that they execute."""

import asyncio
import json
from functools import partial

from aiki import Client
from aiki.engine.journal import EntryKind
from aiki.engine.status import RunStatus
from tests.scenarios import app
from tests.scenarios.cluster import Cluster, Process, eventually

PATIENCE = 60.0


async def test_a_run_goes_on_elsewhere_when_its_worker_is_killed_in_the_third_of_five_tasks(
    cluster: Cluster,
) -> None:
    cluster.orchestrator()
    cluster.worker("five-steps")
    cluster.worker("five-steps")
    cluster.world.hold("step-3")
    async with Client.connect(cluster.amqp_url) as client:
        handle = await app.five_steps.enqueue(client)
        await asyncio.to_thread(eventually, lambda: cluster.world.effects("step-3:begin"), "the third task to begin")

        victim = cluster.worker_with_pid(cluster.world.effects("step-3:begin")[0].process_id)
        await asyncio.to_thread(victim.kill)
        cluster.world.release("step-3")
        result = await handle.wait_for_completion(timeout=PATIENCE)
        journal = await handle.journal()
        state = await handle.get()

    assert result == [f"step-{number}" for number in range(1, 6)]
    begun = {name: cluster.world.effects(f"{name}:begin") for name in result}
    assert {name: len(effects) for name, effects in begun.items()} == {
        "step-1": 1,
        "step-2": 1,
        "step-3": 2,
        "step-4": 1,
        "step-5": 1,
    }
    interrupted, repeated = begun["step-3"]
    assert interrupted.process_id != repeated.process_id
    assert interrupted.key == repeated.key
    assert (interrupted.attempt, repeated.attempt) == (1, 1), "losing a worker is not an attempt"
    tasks = [entry for entry in journal if entry.kind is EntryKind.TASK_COMPLETED]
    assert [entry.epoch for entry in tasks] == [1, 1, 2, 2, 2]
    assert not [entry for entry in journal if entry.kind is EntryKind.ATTEMPT_FAILED]
    assert state.pair.epoch == 2


async def test_a_frozen_worker_that_wakes_up_is_refused_and_the_run_has_one_history(cluster: Cluster) -> None:
    cluster.environment["AIKI_HEARTBEAT"] = "1"
    cluster.orchestrator()
    frozen = cluster.worker("five-steps")
    cluster.world.hold("step-3")
    async with Client.connect(cluster.amqp_url) as client:
        handle = await app.five_steps.enqueue(client)
        await asyncio.to_thread(eventually, lambda: cluster.world.effects("step-3:begin"), "the third task to begin")

        frozen.freeze()
        cluster.world.release("step-3")
        # No timer of ours: the broker notices the silence, and hands the run to the second worker.
        cluster.worker("five-steps")
        result = await handle.wait_for_completion(timeout=PATIENCE)
        over = await handle.journal()
        frozen.thaw()
        await asyncio.to_thread(frozen.wait_for_output, "abandoned")
        assert await handle.status() is RunStatus.COMPLETED
        later = await handle.journal()

    assert result == [f"step-{number}" for number in range(1, 6)]
    assert later == over
    assert [entry.seq for entry in over] == list(range(1, len(over) + 1))
    assert [entry.epoch for entry in over] == sorted(entry.epoch for entry in over)
    assert len(cluster.world.effects("step-4:begin")) == 1
    assert len(cluster.world.effects("step-1:begin")) == 1
    assert frozen.is_alive


async def test_a_run_that_kills_its_workers_is_parked_and_goes_on_after_the_fix(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.world.hold("before")

    async with Client.connect(cluster.amqp_url) as client:
        neighbours = [await app.nap.enqueue(client, 0.5) for _ in range(3)]
        first = cluster.worker("killer", "nap")
        await asyncio.to_thread(
            eventually, lambda: len(cluster.world.effects("before:begin")) == 3, "the neighbours to be under way"
        )
        culprit = await app.killer.enqueue(client)
        await asyncio.to_thread(eventually, lambda: not first.is_alive, "the worker to be killed")
        cluster.world.release("before")
        deaths = 1
        while (await culprit.status()) is not RunStatus.DEAD_LETTERED:
            worker = cluster.worker("killer", "nap")
            await asyncio.to_thread(
                eventually,
                partial(_is_decided, cluster, worker, culprit.id),
                "the worker to be killed, or the run to be parked",
            )
            deaths += not worker.is_alive
        if not worker.is_alive:
            cluster.worker("killer", "nap")
        assert [await neighbour.wait_for_completion(timeout=PATIENCE) for neighbour in neighbours] == ["after"] * 3

        records = [await neighbour.journal() for neighbour in neighbours]

        listed = json.loads(cluster.run("dead-letters", "list", "--json").stdout)
        [letter] = listed if isinstance(listed, list) else listed["letters"]
        cluster.world.set_flag("mended")
        redriven = cluster.run("dead-letters", "redrive", _id_of(letter))
        assert redriven.returncode == 0, redriven.stderr
        await asyncio.to_thread(
            eventually, lambda: len(cluster.world.effects("deadly")) == deaths + 1, "the run to go on"
        )
    async with Client.connect(cluster.amqp_url) as another:
        result = await another.handle(culprit.id).wait_for_completion(timeout=PATIENCE)

    assert result == "survived"
    # Three recoveries are allowed, the fourth loss makes it a suspect, the fifth alone ends it. The very first death
    # may come so early that the broker has not confirmed the start of the run; then it does not count against it.
    assert deaths in (5, 6), deaths
    for record in records:
        tasks = [entry.operation for entry in record if entry.kind is EntryKind.TASK_COMPLETED]
        assert len(tasks) == len(set(tasks)) == 2, "each task of a neighbour is recorded once"


def _id_of(letter: dict[str, object]) -> str:
    inner = letter.get("letter", letter)
    assert isinstance(inner, dict)
    return str(inner["id"])


def _is_decided(cluster: Cluster, worker: Process, run_id: str) -> bool:
    if not worker.is_alive:
        return True
    shown = cluster.run("runs", "show", run_id, "--json")
    return shown.returncode == 0 and '"dead_lettered"' in shown.stdout
