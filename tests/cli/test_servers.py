"""The command line on real servers: services, setting up the broker, and the doctor."""

import asyncio
import json
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from aiki.adapters.broker.rabbitmq import inspect_broker
from broker_topology import RETRY_GRID_MS, command_queue, topology
from tests.cli.processes import CommandLine, Service, eventually

ELSEWHERE = """
from aiki import Run, task, workflow

@task(queue="gpu")
def wrap(item: str) -> str:
    return item

@workflow(version="1.0.0")
async def packing(run: Run, item: str) -> str:
    return await wrap.run(run, item)
"""


@pytest.fixture
def servers(tmp_path: Path, amqp_url: str, mongodb_url: str, mongodb_database: str) -> Iterator[CommandLine]:
    """The command line in a project that has the shop as its app, with servers of its own."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path / "shop.py")
    command_line = CommandLine(
        tmp_path,
        AIKI_APP="shop",
        AIKI_AMQP_URL=amqp_url,
        AIKI_MONGODB_URL=mongodb_url,
        AIKI_MONGODB_DATABASE=mongodb_database,
        AIKI_PARTITIONS="2",
    )
    yield command_line
    command_line.close()


def orchestrator(servers: CommandLine, *arguments: str) -> Service:
    service = servers.start("orchestrator", *arguments)
    service.says("orchestrator.started")
    return service


def worker(servers: CommandLine, *arguments: str) -> Service:
    service = servers.start("worker", *arguments)
    service.says("worker.started")
    return service


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def verdicts(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in findings}


async def publish(url: str, queue: str, body: bytes) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)


async def delete_queues(url: str) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        for queue in (*topology(2).queues, *command_queue("nap@1.0.0").queues, *command_queue("order@1.0.0").queues):
            await channel.queue_delete(queue.name)


def test_a_run_goes_through_the_services_and_their_stop_is_clean(servers: CommandLine) -> None:
    port = free_port()
    services = [orchestrator(servers, "--health", f"127.0.0.1:{port}"), worker(servers, "--queue", "order")]

    result = json.loads(servers.does("enqueue", "order", '{"item": "book"}', "--wait"))

    assert result["packed"] == "packed book"
    shown = servers.tells("runs", "show")
    assert {step["name"]: step["attempts"] for step in shown["steps"]} == {"charge": 3, "pack": 1, "send": 1}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready") as answer:
        assert json.load(answer)["ready"] is True
    for service in services:
        service.send(signal.SIGTERM)
        assert service.ends() == 0
        assert "Traceback" not in service.output


def test_the_first_ctrl_c_hands_runs_back_to_other_workers(servers: CommandLine) -> None:
    (servers.folder / "slow").touch()
    orchestrator(servers)
    first = worker(servers, "--queue", "order@1.0.0")
    run_id = servers.does("enqueue", "order", '{"item": "book"}')
    eventually(lambda: "sending" in (servers.folder / "notes.txt").read_text(), "the task to execute")

    first.send(signal.SIGINT)
    first.says("stopping: handing back 1 runs, 30.0s at most; once more to stop at once")
    (servers.folder / "slow").unlink()

    assert first.ends() == 130
    worker(servers)
    servers.becomes(run_id, "completed")
    assert (servers.folder / "notes.txt").read_text().count("sending") == 1


def test_the_topology_is_checked_applied_and_then_in_order(servers: CommandLine) -> None:
    missing = servers.run("topology", "check", "--json")
    assert missing.returncode == 1
    differences = json.loads(missing.stdout)["differences"]
    assert "queue aiki.events.1 is missing" in differences
    assert "queue order@1.0.0 is missing" in differences

    servers.does("topology", "apply")

    assert servers.tells("topology", "check") == {"differences": []}


def test_the_queues_of_another_app_and_of_all_retries_are_declared_ahead(servers: CommandLine) -> None:
    (servers.folder / "elsewhere.py").write_text(ELSEWHERE, encoding="utf-8")
    servers.does("topology", "apply")

    missing = servers.run("topology", "check", "--retries", "--app", "elsewhere", "--json")

    found = json.loads(missing.stdout)["differences"]
    assert "queue packing@1.0.0 is missing" in found
    assert "queue gpu is missing" in found
    assert sum(line.startswith("queue aiki.retry.") for line in found) == len(RETRY_GRID_MS)
    servers.does("topology", "apply", "--retries", "--app", "elsewhere")
    assert servers.tells("topology", "check", "--retries", "--app", "elsewhere") == {"differences": []}


def test_the_exported_definitions_are_those_of_the_settings(servers: CommandLine) -> None:
    servers.does("topology", "export", "--vhost", "shop", "--output", "definitions.json")

    definitions = json.loads((servers.folder / "definitions.json").read_text())
    assert {queue["name"] for queue in definitions["queues"]} >= {"aiki.events.0", "aiki.events.1"}
    assert "aiki.events.2" not in {queue["name"] for queue in definitions["queues"]}
    assert {vhost["name"] for vhost in definitions["vhosts"]} == {"shop"}


def test_definitions_that_cannot_be_written_are_refused_with_the_reason(servers: CommandLine) -> None:
    refused = servers.refuses("topology", "export", "--output", "nowhere/definitions.json")

    assert "nowhere/definitions.json" in refused
    assert "No such file or directory" in refused


def test_the_doctor_finds_what_is_missing_and_then_nothing(servers: CommandLine) -> None:
    sick = servers.run("doctor", "--json")
    assert sick.returncode == 1
    found = verdicts(json.loads(sick.stdout)["findings"])
    assert found["topology"] == "problem"
    assert found["store"] == "ok"

    orchestrator(servers)
    worker(servers)

    eventually(lambda: servers.run("doctor").returncode == 0, "the doctor to be content")
    found = verdicts(servers.tells("doctor")["findings"])
    # The servers of tests have no management API.
    assert found.pop("consumer timeout") == "unknown"
    assert set(found.values()) == {"ok"}


def test_the_doctor_finds_queues_without_a_consumer_and_another_number_of_partitions(servers: CommandLine) -> None:
    orchestrator(servers)
    worker(servers, "--queue", "order")
    run_id = servers.does("enqueue", "nap")
    servers.becomes(run_id, "queued")

    def looks() -> str:
        return servers.run("doctor").stdout

    eventually(lambda: "1 runs wait in nap@1.0.0, and nobody consumes it" in looks(), "the doctor to see it")
    done = servers.run("doctor", AIKI_PARTITIONS="4")
    assert "4 here, 2 in the store" in done.stdout
    refused = servers.refuses("orchestrator", AIKI_PARTITIONS="4")
    assert "AIKI_PARTITIONS=2" in refused


def test_the_bench_measures_these_servers_and_deletes_its_queue(servers: CommandLine, amqp_url: str) -> None:
    orchestrator(servers)

    done = servers.run("bench", "--runs", "20", "--alone", "10", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == 20
    (queue,) = (word for word in done.stderr.split() if word.startswith("aiki-bench@"))
    assert asyncio.run(inspect_broker(amqp_url, [queue])).missing == (queue,)


def test_the_bench_without_an_orchestrator_says_what_is_missing(servers: CommandLine) -> None:
    refused = servers.refuses("bench", "--wait", "300ms")

    assert "the first run was not over after 0.3 s" in refused
    assert "is an orchestrator running?" in refused


def test_the_doctor_says_which_server_cannot_be_reached(servers: CommandLine) -> None:
    done = servers.run(
        "doctor",
        AIKI_AMQP_URL="amqp://localhost:1",
        AIKI_MONGODB_URL="mongodb://localhost:1/?serverSelectionTimeoutMS=500",
    )

    assert done.returncode == 1
    assert "cannot connect to RabbitMQ at amqp://localhost:1" in done.stdout
    assert "MongoDB" in done.stdout


def test_a_message_that_nobody_can_read_is_listed_shown_and_discarded(servers: CommandLine, amqp_url: str) -> None:
    orchestrator(servers)
    asyncio.run(publish(amqp_url, "aiki.events.0", b"this is [no] JSON"))
    eventually(lambda: servers.tells("dead-letters", "list")["letters"], "a dead letter")

    (letter,) = servers.tells("dead-letters", "list")["letters"]

    assert letter["reason"] == "broken_json"
    assert letter["origin"] == "aiki.events.0"
    assert "this is [no] JSON" in servers.does("dead-letters", "show", letter["id"])
    servers.does("dead-letters", "discard", letter["id"])
    assert servers.tells("dead-letters", "list")["letters"] == []
    (done,) = servers.tells("dead-letters", "list", "--all")["letters"]
    assert done["state"] == "discarded"


def test_a_rebuild_sends_again_what_the_broker_has_lost(servers: CommandLine, amqp_url: str) -> None:
    first = orchestrator(servers)
    run_id = servers.does("enqueue", "order", '{"item": "book"}')
    servers.becomes(run_id, "queued")
    first.send(signal.SIGTERM)
    first.ends()
    asyncio.run(delete_queues(amqp_url))

    report = servers.tells("rebuild", "--yes")

    assert report["unfinished"] == 1
    assert report["dispatched"] == 1
    orchestrator(servers)
    worker(servers)
    servers.becomes(run_id, "completed")


def test_a_rebuild_asks_first(servers: CommandLine) -> None:
    done = servers.run("rebuild", input="n\n")

    assert done.returncode == 1
    assert "Dispatch all unfinished runs again?" in done.stderr
