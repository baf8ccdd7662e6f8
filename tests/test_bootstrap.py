"""From settings to something that runs: which adapters are picked, and the embedded engine."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import aiki
from aiki import Client, ConfigurationError, Run, Worker, task, workflow
from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.broker.socket import SocketBroker
from aiki.adapters.store.embedded import SqliteStore
from aiki.adapters.store.mongodb import MongoStore
from aiki.bootstrap import amqp_url, broker_url, connect_client, make_broker, make_store, running_dev
from aiki.config import Settings
from aiki.engine.status import RunStatus
from aiki.errors import BrokerUnavailableError, StoreUnavailableError

counted: list[str] = []


@task
async def count(word: str) -> str:
    counted.append(word)
    return word * 2


@workflow
async def twice(run: Run, word: str) -> str:
    return await count.run(run, word)


@workflow
async def patient(run: Run, word: str) -> str:
    counted_first = await count.run(run, word)
    return counted_first + await run.wait_for_signal("go", str)


async def test_an_embedded_engine_runs_a_workflow() -> None:
    async with aiki.embedded() as client, Worker(client, workflows=[twice]):
        handle = await twice.enqueue(client, "ab")

        assert await handle.wait_for_completion(timeout=10) == "abab"


async def test_embedded_engines_in_memory_know_nothing_of_each_other() -> None:
    async with aiki.embedded() as one, aiki.embedded() as other:
        handle = await twice.enqueue(one, "ab")
        assert await handle.status() is RunStatus.QUEUED

        assert (await other.find()).runs == ()


async def test_an_embedded_engine_with_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    counted.clear()
    file = tmp_path / "runs.db"
    async with aiki.embedded(file) as client, Worker(client, workflows=[patient]):
        run_id = (await patient.enqueue(client, "ab")).id
        async with asyncio.timeout(10):
            while await client.handle(run_id).status() is not RunStatus.AWAITING_SIGNAL:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with aiki.embedded(file) as client, Worker(client, workflows=[patient]):
        handle = client.handle(run_id, patient)
        await handle.send("go", "!")

        assert await handle.wait_for_completion(timeout=10) == "abab!"
    assert counted == ["ab"]


async def test_a_new_file_has_one_partition_and_another_keeps_those_that_it_was_made_with(tmp_path: Path) -> None:
    async with aiki.embedded(tmp_path / "new.db") as client:
        assert client.connection.broker.partitions == 1

    older = SqliteStore(tmp_path / "older.db")
    await older.start()
    await older.partitions(8)
    await older.close()
    async with aiki.embedded(tmp_path / "older.db") as client, Worker(client, workflows=[twice]):
        assert client.connection.broker.partitions == 8
        handle = await twice.enqueue(client, "ab")
        assert await handle.wait_for_completion(timeout=10) == "abab"


async def test_a_file_has_one_owner(tmp_path: Path) -> None:
    async with aiki.embedded(tmp_path / "runs.db"):
        with pytest.raises(StoreUnavailableError, match=r"runs\.db"):
            async with aiki.embedded(tmp_path / "runs.db"):
                pass


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    file.write_text("this is my diary" * 100)

    with pytest.raises(ConfigurationError):
        async with aiki.embedded(file):
            pass

    assert file.read_text() == "this is my diary" * 100


async def test_what_is_set_of_a_worker_arrives_there(tmp_path: Path) -> None:
    leases = {"lease_after": timedelta(seconds=90), "lease": timedelta(seconds=40)}
    settings = Settings(root=tmp_path, concurrency=7, shutdown_grace=timedelta(seconds=3), **leases)

    async with running_dev(settings, [twice]) as dev:
        worker = dev.worker.settings

        assert (worker.max_concurrent_runs, worker.shutdown_grace) == (7, 3.0)
        assert (worker.lease_after, worker.lease) == (90.0, 40.0)


async def test_a_running_dev_is_found_by_who_says_nothing(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path)
    assert broker_url(settings) == "amqp://localhost"

    async with running_dev(settings, [twice]) as dev:
        assert broker_url(settings) == f"embedded:{dev.database}"
        async with connect_client(settings) as client:
            handle = await twice.enqueue(client, "cd")
            assert await handle.wait_for_completion(timeout=10) == "cdcd"

    assert broker_url(settings) == "amqp://localhost"
    assert broker_url(Settings(root=tmp_path, amqp_url="amqp://shop")) == "amqp://shop"


async def test_a_client_over_the_socket_takes_no_orders(tmp_path: Path) -> None:
    async with (
        running_dev(Settings(root=tmp_path), [twice]) as dev,
        Client.connect(f"embedded:{dev.database}") as client,
    ):
        with pytest.raises(ConfigurationError, match="takes no orders"):
            Worker(client, workflows=[twice])


async def test_a_client_of_an_engine_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailableError, match="aiki dev"):
        async with Client.connect(f"embedded:{tmp_path / 'dev.db'}"):
            pass


def test_a_url_decides_about_the_broker(tmp_path: Path) -> None:
    assert isinstance(Client.connect("amqp://localhost").connection.broker, RabbitBroker)
    assert isinstance(Client.connect("amqps://localhost").connection.broker, RabbitBroker)
    assert isinstance(Client.connect(f"embedded:{tmp_path}/dev.db").connection.broker, SocketBroker)
    with pytest.raises(ConfigurationError, match="allowed: amqp://"):
        Client.connect("redis://localhost")


def test_what_a_client_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIKI_PARTITIONS", "3")
    monkeypatch.setenv("AIKI_TIMEOUT", "7")

    assert Client.connect("amqp://localhost").connection.broker.partitions == 3
    given = Client.connect("amqp://localhost", partitions=5, timeout=timedelta(seconds=2))
    assert given.connection.broker.partitions == 5
    assert given.connection.timeout == 2


def test_services_use_rabbitmq_and_mongodb() -> None:
    assert isinstance(make_broker(Settings(), name="test"), RabbitBroker)
    assert isinstance(make_store(Settings()), MongoStore)
    with pytest.raises(ConfigurationError, match="embedded engine"):
        amqp_url(Settings(amqp_url="embedded:dev.db"))


async def test_a_client_on_rabbitmq_connects_by_url(amqp_url: str) -> None:
    async with Client.connect(amqp_url, name="shop") as client:
        assert client.connection.broker.is_connected


def test_a_client_loads_no_driver_of_the_store() -> None:
    code = "import sys, aiki; aiki.Client.connect('amqp://localhost'); print('pymongo' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
