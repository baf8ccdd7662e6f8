"""What runs cost on real servers, as the servers count it; and that the rows of the bench measure that."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from aiki import Client, Worker
from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.clock import SystemClock
from aiki.adapters.store.mongodb import MongoStore
from aiki.cli.measuring import in_flight
from aiki.orchestrator import Orchestrator, OrchestratorSettings
from aiki.sdk import publisher
from aiki.testing.servers import MongoNode, RabbitNode
from bench.counting import SELDOM
from bench.load import IN_FLIGHT, difference
from bench.system import System
from bench.workflows import run_three, three_steps

pytestmark = pytest.mark.timeout(180)

ROWS = ("throughput", "latency", "enqueue", "raw-throughput", "raw-latency", "raw-enqueue", "raw-parts")

RUNS_ALONE = 40

# What is said for a run by the way: that somebody is there, what was under way when the counting began.
ASIDE = 0.05

Rows = Mapping[str, Mapping[str, float]]


@asynccontextmanager
async def an_engine(system: System, settings: OrchestratorSettings) -> AsyncIterator[Client]:
    """Run an orchestrator and a worker in this process, each with its own connections, and give a client."""
    async with AsyncExitStack() as stack:
        clock, store = SystemClock(), MongoStore(system.mongo.url)
        broker, of_client, of_worker = (RabbitBroker(system.rabbit.url) for _ in range(3))
        for port in (store, broker):
            stack.push_async_callback(port.close)
            await port.start()
        orchestrator = Orchestrator(broker, store, clock, settings)
        await orchestrator.start()
        stack.push_async_callback(orchestrator.stop)
        client = await stack.enter_async_context(Client(of_client, clock=clock))
        connection = await stack.enter_async_context(Client(of_worker, clock=clock, listen=False))
        await stack.enter_async_context(Worker(connection, workflows=[three_steps]))
        yield client


async def counted(system: System, work: Awaitable[object], runs: int) -> Mapping[str, float]:
    """Count what is said to the servers for each of so many *runs* while *work* is done."""
    commands, traffic = system.commands(), system.traffic()
    await work
    said = {**difference(system.traffic(), traffic), **difference(system.commands(), commands)}
    return {name: number / runs for name, number in said.items() if number}


def asked_of_mongodb(said: Mapping[str, float]) -> dict[str, float]:
    """Tell what MongoDB was asked for, beside the heartbeats of its drivers."""
    return {name: number for name, number in said.items() if not name.startswith(("MongoDB", "RabbitMQ", "hello"))}


async def one_after_the_other(client: Client) -> None:
    await in_flight(lambda number: run_three(client, number), times=RUNS_ALONE, at_once=1)


async def many_in_flight(client: Client) -> None:
    await in_flight(lambda number: run_three(client, number), times=3 * IN_FLIGHT, at_once=IN_FLIGHT)


async def test_what_a_run_says_to_the_servers(
    tmp_path: Path, dedicated_rabbit: RabbitNode, dedicated_mongo: MongoNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(dedicated_rabbit, dedicated_mongo, tmp_path)

    with monkeypatch.context() as patience:
        # However slow the machine is, what may wait does so: the counts of a run that is alone do not vary.
        patience.setattr(publisher, "STARTED_SECONDS", 60.0)
        async with an_engine(system, replace(SELDOM, company=60.0)) as client:
            await run_three(client, 0)
            alone = await counted(system, one_after_the_other(client), RUNS_ALONE)
    async with an_engine(system, SELDOM) as client:
        await many_in_flight(client)
        together = await counted(system, many_in_flight(client), 3 * IN_FLIGHT)

    # Its four messages of events, an order, a notice. 9,165 bytes when they were counted, with those of the protocol.
    assert alone["RabbitMQ messages in"] == pytest.approx(6, abs=ASIDE)
    assert alone["RabbitMQ messages out"] == pytest.approx(6, abs=ASIDE)
    assert alone["RabbitMQ bytes"] < 9400
    # The run; its entries; what became of it. 4,500 bytes when they were counted.
    assert asked_of_mongodb(alone) == pytest.approx({"insert": 2, "update": 1}, abs=ASIDE)
    assert alone["MongoDB inserts"] == pytest.approx(4, abs=ASIDE)
    assert alone["MongoDB updates"] == pytest.approx(1, abs=ASIDE)
    assert alone["MongoDB bytes"] < 4800

    # 2.1 messages when they were counted, and 7,570 bytes.
    assert together["RabbitMQ messages in"] < 2.3
    assert together["RabbitMQ bytes"] < 7800
    # 0.04 and 0.02 writes for a run when they were counted, of 2,900 bytes; and nothing else.
    writes = asked_of_mongodb(together)
    assert writes.keys() == {"insert", "update"}
    assert writes["insert"] < 0.12
    assert writes["update"] < 0.08
    assert together["MongoDB inserts"] == pytest.approx(4, abs=ASIDE)
    assert together["MongoDB updates"] <= 2 + ASIDE
    assert together["MongoDB bytes"] < 3200


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Measure the rows in their shortest form, as `make bench` does."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [sys.executable, "-m", "bench", *ROWS, "--rounds", "1", "--scale", "0.01", "--json", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=150)
    found: dict[str, dict[str, float]] = {}
    for line in json.loads(file.read_text())["lines"]:
        found.setdefault(line["row"], {})[line["figure"]] = line["median"]
    return found


@pytest.mark.servers
def test_each_row_measures_something(rows: Rows) -> None:
    assert rows.keys() == set(ROWS)
    assert all(rows[row]["runs/s"] > 0 for row in ("throughput", "raw-throughput"))
    assert all(rows[row]["p50 ms"] > 0 for row in ("latency", "raw-latency"))
    assert all(rows[row]["accepted runs/s"] > 0 for row in ("enqueue", "raw-enqueue"))
    assert all(milliseconds > 0 for milliseconds in rows["raw-parts"].values())


@pytest.mark.servers
@pytest.mark.parametrize("row", ["throughput", "latency"])
def test_the_limit_says_no_more_than_what_it_is_the_limit_of(rows: Rows, row: str) -> None:
    measured, limit = rows[row], rows[f"raw-{row}"]

    for name in ("RabbitMQ messages in", "RabbitMQ messages out", "MongoDB inserts", "MongoDB queries"):
        assert limit[f"{name} per run"] <= measured[f"{name} per run"] + ASIDE
    # Whenever the machine stands still for longer than what is said may wait, a run is written once more.
    assert limit["MongoDB updates per run"] <= measured["MongoDB updates per run"] + 0.5
