"""Bad input gives a clear error in the right place, or a dead letter with a reason; nothing stops."""

import asyncio
import json
from typing import Any, cast

import aio_pika
import pytest

from aiki import (
    AikiError,
    BrokerUnavailableError,
    Client,
    InvalidArgumentsError,
    InvalidNameError,
    PayloadTooLargeError,
    RunFailedError,
    workflow,
)
from aiki.testing.servers import MongoNode
from tests.scenarios import app
from tests.scenarios.cluster import Cluster, eventually

PATIENCE = 60.0


async def test_wrong_arguments_are_found_before_anything_is_sent(cluster: Cluster) -> None:
    async with Client.connect(cluster.amqp_url) as client:
        with pytest.raises(InvalidArgumentsError, match="start"):
            await app.count_to_three.enqueue(client, cast(Any, "many"))
        with pytest.raises(InvalidArgumentsError):
            await cast(Any, app.count_to_three).enqueue(client)
        with pytest.raises(InvalidArgumentsError, match="finish"):
            await cast(Any, app.count_to_three).enqueue(client, 1, finish=2)


def test_names_that_cannot_be_queues_are_refused_where_they_are_written() -> None:
    for name in ("", "has space", "a" * 200, "aiki.mine@", "emoji😀", "dot.ted"):
        with pytest.raises(InvalidNameError, match="cannot be the name"):
            workflow(name=name)(app.five_steps.function)


async def test_a_payload_over_the_limit_says_both_sizes(cluster: Cluster) -> None:
    async with Client.connect(cluster.amqp_url) as client:
        with pytest.raises(PayloadTooLargeError, match="bytes"):
            await client.enqueue("anything", {"text": "x" * 2_000_000}, version="1.0.0")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://guest:guest@127.0.0.1:1/", "127.0.0.1:1"),
        ("amqp://nobody:wrong@{host}/{vhost}", "refuses the user or its password"),
        ("amqp://guest:guest@{host}/no-such-vhost", "no-such-vhost"),
    ],
)
async def test_a_broker_that_cannot_be_reached_is_named_and_the_password_is_not(
    cluster: Cluster, url: str, said: str
) -> None:
    address, _, vhost = cluster.amqp_url.rpartition("@")[2].partition("/")
    wrong = url.format(host=address, vhost=vhost)

    with pytest.raises(BrokerUnavailableError) as caught:
        async with Client.connect(wrong):
            pass

    assert said in str(caught.value)
    assert "hint" in str(caught.value)
    assert ":wrong@" not in str(caught.value)


async def test_what_nobody_can_read_becomes_a_dead_letter_and_no_consumer_stops(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.worker("count-to-three")
    rubbish = [b"{broken", b"\xff\xfe", b'{"v":99,"events":[]}', b'{"v":1,"events":[{"type":"Nonsense"}]}', b"[]"]
    queues = ["aiki.events.0", "aiki.events.7", "count-to-three@1.0.0", "aiki.queries"]
    connection = await aio_pika.connect(cluster.amqp_url)
    async with connection:
        channel = await connection.channel()
        for queue in queues:
            for body in rubbish:
                await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)

    async with Client.connect(cluster.amqp_url) as client:
        handles = [await app.count_to_three.enqueue(client, number) for number in range(20)]
        results = [await handle.wait_for_completion(timeout=PATIENCE) for handle in handles]

    assert results == [number + 3 for number in range(20)]
    expected = len(queues) * len(rubbish)

    def letters() -> list[dict[str, Any]]:
        listed = json.loads(cluster.run("dead-letters", "list", "--limit", "200", "--json").stdout)
        found = listed if isinstance(listed, list) else listed["letters"]
        return [letter.get("letter", letter) for letter in found]

    await asyncio.to_thread(eventually, lambda: len(letters()) >= expected, f"{expected} dead letters")
    assert {letter["origin"] for letter in letters()} == set(queues)
    assert all(letter["reason"] for letter in letters())


async def test_an_unknown_workflow_becomes_a_dead_letter_or_waits_for_its_worker(cluster: Cluster) -> None:
    cluster.orchestrator()
    async with Client.connect(cluster.amqp_url) as client:
        handle = await client.enqueue("nobody-serves-this", {}, version="1.0.0")
        eventually_queued = await handle.status()

    assert eventually_queued.value == "queued"
    doctor = cluster.run("doctor")
    assert "nobody-serves-this@1.0.0" in doctor.stdout


def test_the_command_line_says_what_is_wrong(cluster: Cluster) -> None:
    for arguments, said in [
        (["enqueue", "no-such-workflow", "{}"], "no-such-workflow"),
        (["enqueue", "count-to-three", "{broken"], "JSON"),
        (["enqueue", "count-to-three", '{"start": "many"}'], "start"),
        (["worker", "--queue", "no-such-workflow"], "no-such-workflow"),
        (["worker", "--app", "no_such_module", "--queue", "x"], "no_such_module"),
        (["runs", "show", "not-a-run"], "not-a-run"),
    ]:
        if arguments[0] == "runs":
            cluster.orchestrator()
        done = cluster.run(*arguments)
        assert done.returncode in (1, 2), (arguments, done)
        assert said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


async def test_a_mongodb_that_refuses_writes_holds_runs_back_and_loses_none(
    breakable_cluster: Cluster, dedicated_mongo: MongoNode
) -> None:
    orchestrator = breakable_cluster.orchestrator()
    breakable_cluster.worker("count-to-three")
    dedicated_mongo.fail("insert", "update", "bulkWrite", error_code=10107)  # NotWritablePrimary
    async with Client.connect(breakable_cluster.amqp_url) as client:
        handles = [await app.count_to_three.enqueue(client, number) for number in range(10)]
        await asyncio.to_thread(orchestrator.wait_for_output, "store.")
        assert orchestrator.is_alive

        dedicated_mongo.heal()
        results = [await handle.wait_for_completion(timeout=PATIENCE) for handle in handles]

    assert results == [number + 3 for number in range(10)]


async def test_a_task_whose_result_cannot_be_written_fails_its_run_with_its_name(cluster: Cluster) -> None:
    cluster.orchestrator()
    cluster.worker("unwritable")
    async with Client.connect(cluster.amqp_url) as client:
        handle = await app.unwritable.enqueue(client)
        with pytest.raises(RunFailedError, match="opaque") as caught:
            await handle.wait_for_completion(timeout=PATIENCE)

    assert isinstance(caught.value, AikiError)
