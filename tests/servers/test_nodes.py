"""The private RabbitMQ and MongoDB keep what they confirmed, whatever is done to them."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from pymongo import MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import NotPrimaryError, OperationFailure

from aiki.testing.servers import MongoNode, MongoReplicaSet, RabbitNode, ServerError
from aiki.testing.servers.remote import RemoteMongo, RemoteRabbit

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
NOT_WRITABLE_PRIMARY = 10107


async def publish_one(url: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments=QUORUM)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept")


async def take_one(url: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, arguments=QUORUM)
        message = await queue.get(timeout=10)
        assert message is not None
        await message.ack()
        return message.body


async def test_a_rabbitmq_that_was_killed_comes_back_with_its_messages(dedicated_rabbit: RabbitNode) -> None:
    dedicated_rabbit.add_vhost("a/b c")
    url = dedicated_rabbit.url_of("a/b c")
    await publish_one(url, b"kept")
    dedicated_rabbit.settle()
    before = dedicated_rabbit.pid

    await asyncio.to_thread(dedicated_rabbit.kill)
    was_running = dedicated_rabbit.is_running
    await asyncio.to_thread(dedicated_rabbit.start)

    assert not was_running
    assert dedicated_rabbit.pid != before
    assert await take_one(url) == b"kept"


def test_a_rabbitmq_is_ruled_from_outside(dedicated_rabbit: RabbitNode) -> None:
    dedicated_rabbit.ctl("add_user", "ada", "lovelace")
    dedicated_rabbit.add_vhost("mine", user="ada")

    assert "ada" in dedicated_rabbit.ctl("list_users")
    assert asyncio.run(can_connect(dedicated_rabbit.url_of("mine", user="ada", password="lovelace")))
    with pytest.raises(ServerError, match="no_such_command"):
        dedicated_rabbit.ctl("no_such_command")
    with pytest.raises(ServerError, match="could not evaluate"):
        dedicated_rabbit.evaluate("1 + a")

    dedicated_rabbit.freeze()
    assert not dedicated_rabbit.is_ready()
    dedicated_rabbit.thaw()
    assert dedicated_rabbit.is_ready()

    dedicated_rabbit.stop()
    assert not dedicated_rabbit.is_running
    assert not dedicated_rabbit.epmd.is_running


async def can_connect(url: str) -> bool:
    async with await aio_pika.connect(url) as connection:
        return not connection.is_closed


def test_a_mongodb_that_was_killed_comes_back_with_what_it_confirmed(dedicated_mongo: MongoNode) -> None:
    with dedicated_mongo.client() as client:
        things = client["kept"].get_collection("things", write_concern=WriteConcern(w="majority", j=True))
        things.insert_one({"_id": 1})

    dedicated_mongo.kill()
    was_running = dedicated_mongo.is_running
    dedicated_mongo.start()

    assert not was_running
    with dedicated_mongo.client() as client:
        assert client["kept"]["things"].count_documents({}) == 1


def test_a_mongodb_supports_transactions_and_change_streams(dedicated_mongo: MongoNode) -> None:
    client: MongoClient[dict[str, Any]]
    with MongoClient(dedicated_mongo.url) as client:
        things: Collection[dict[str, Any]] = client["mine"]["things"]
        with things.watch() as changes:
            with client.start_session() as session, session.start_transaction():
                things.insert_one({"_id": 1}, session=session)

            assert changes.next()["documentKey"] == {"_id": 1}


def test_a_mongodb_fails_on_request(dedicated_mongo: MongoNode) -> None:
    with dedicated_mongo.client() as client:
        things = client["mine"]["things"]

        dedicated_mongo.fail("insert", error_code=13)
        with pytest.raises(OperationFailure, match="failCommand"):
            things.insert_one({"_id": 1})
        dedicated_mongo.heal()
        things.insert_one({"_id": 1})

        # A driver tries again once when the primary says that it is none; so two times.
        dedicated_mongo.fail("insert", error_code=NOT_WRITABLE_PRIMARY, times=2)
        with pytest.raises(NotPrimaryError):
            things.insert_one({"_id": 2})
        things.insert_one({"_id": 2})


@pytest.mark.servers
def test_nobody_waits_for_a_replica_set_of_which_no_member_is_left(tmp_path: Path) -> None:
    with MongoReplicaSet(tmp_path, size=1) as replicas:
        was_elected = replicas.wait_for_primary() is replicas.members[0]
        replicas.members[0].kill()

        with pytest.raises(ServerError, match="no member of it runs"):
            replicas.wait_for_primary()

    assert was_elected


@pytest.mark.servers
def test_servers_to_develop_with_are_started_once_and_stopped(tmp_path: Path) -> None:
    def command(word: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "aiki.testing.servers", word],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )

    try:
        first, second = command("up"), command("up")
        assert first.returncode == 0, first.stderr
        assert first.stdout == second.stdout
        variables = dict(re.findall(r"export (\w+)='?([^'\n]*)'?\n", first.stdout))

        # The same variables bring the tests to these servers.
        rabbit = RemoteRabbit(variables["AIKI_AMQP_URL"], management_url=variables["AIKI_MANAGEMENT_URL"])
        rabbit.add_vhost("a/b c")
        assert asyncio.run(can_connect(rabbit.url_of("a/b c")))
        rabbit.delete_vhost("a/b c")
        rabbit.delete_vhost("a/b c")
        RemoteMongo(variables["AIKI_MONGODB_URL"]).drop_database("mine")
        assert command("status").returncode == 0
    finally:
        down = command("down")

    assert down.returncode == 0
    assert command("status").returncode == 1
