"""Code is changed while runs are suspended: what is safe goes on, what is not fails before it does harm."""

import asyncio

import pytest

from aiki import Client, RunFailedError
from aiki.engine.status import RunStatus
from tests.scenarios.cluster import Cluster, eventually
from tests.scenarios.versions import EDITION_VARIABLE, evolving

PATIENCE = 60.0


async def _change_the_code_while_it_sleeps(cluster: Cluster, client: Client, edition: str) -> object:
    cluster.orchestrator()
    first = cluster.worker("evolving", app="tests.scenarios.versions", **{EDITION_VARIABLE: "original"})
    handle = await evolving.enqueue(client)
    await asyncio.to_thread(eventually, lambda: cluster.world.effects("c:end"), "the third task to end")
    async for state in handle.watch():
        if state.status is RunStatus.SLEEPING:
            break
    await asyncio.to_thread(first.stop)
    cluster.worker("evolving", app="tests.scenarios.versions", **{EDITION_VARIABLE: edition})
    return await handle.wait_for_completion(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("edition", "result"),
    [
        ("reordered", ["c", "a", "b", "d"]),
        ("removed", ["a", "c", "d"]),
        ("appended", ["a", "b", "c", "d", "e"]),
    ],
)
async def test_what_is_safe_goes_on(cluster: Cluster, edition: str, result: list[str]) -> None:
    async with Client.connect(cluster.amqp_url) as client:
        assert await _change_the_code_while_it_sleeps(cluster, client, edition) == result

    for name in ("a", "b", "c"):
        assert len(cluster.world.effects(f"{name}:begin")) == 1


@pytest.mark.parametrize("edition", ["inserted", "input-changed", "renamed"])
async def test_what_is_not_safe_fails_before_anything_new_executes(cluster: Cluster, edition: str) -> None:
    async with Client.connect(cluster.amqp_url) as client:
        with pytest.raises(RunFailedError) as caught:
            await _change_the_code_while_it_sleeps(cluster, client, edition)

    failure = caught.value.failure
    assert failure is not None
    assert "NonDeterminismError" in failure.type
    assert "versions.py" in failure.message, "it names the lines"
    begun = [effect.name for effect in cluster.world.effects() if effect.name.endswith(":begin")]
    assert begun == ["a:begin", "b:begin", "c:begin"]
