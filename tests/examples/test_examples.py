"""The examples run as they are, embedded and on servers, and keep what they say."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aiki import Client, RunCancelledError, RunFailedError, Worker, embedded
from examples import outside
from examples.order_fulfilment import Item, Order, order_fulfilment

ROOT = Path(__file__).parents[2]
MODULES = ("examples.user_onboarding", "examples.order_fulfilment")
ORDER = Order(number="1", items=[Item(sku="tea"), Item(sku="cup", quantity=2)], card="full", cents=900)


def run_example(module: str, *arguments: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIKI_", "EXAMPLES_"))}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**inherited, "EXAMPLES_SECONDS": "0.02", **environment},
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def actions(log: Path, what: str) -> Counter[str]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    notes = [json.loads(line) for line in lines]
    return Counter(note["action"] for note in notes if note["what"] == what)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the tasks wrote down."""
    file = tmp_path / "log.jsonl"
    monkeypatch.setattr(outside, "_LOG", str(file))
    return file


@pytest_asyncio.fixture
async def client(log: Path) -> AsyncIterator[Client]:
    """An engine that serves orders."""
    async with embedded() as client, Worker(client, workflows=[order_fulfilment]):
        yield client


def test_the_onboarding_does_everything_once_and_mails_at_the_second_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    printed = run_example("examples.user_onboarding", EXAMPLES_LOG=str(log))

    assert "steps=['pick a picture', 'invite a friend', 'write a note']" in printed
    assert set(actions(log, "end").values()) == {1}
    assert actions(log, "begin")["mail ada@example.com: Welcome, Ada"] == 2


def test_an_order_that_works_out_is_shipped_and_nothing_taken_back(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    printed = run_example("examples.order_fulfilment", EXAMPLES_LOG=str(log))

    done = actions(log, "end")
    assert "order 1001: payment=" in printed
    assert "CardDeclined: not enough money" in printed
    assert done["ship 1001, 3 items"] == 1
    assert not [action for action in done if "refund 1001" in action or "of 1001" in action]


async def test_a_declined_card_takes_everything_back_and_ships_nothing(client: Client, log: Path) -> None:
    handle = await order_fulfilment.enqueue(client, ORDER.model_copy(update={"card": "empty"}))

    with pytest.raises(RunFailedError, match="not enough money"):
        await handle.wait_for_completion(timeout=20)

    done = actions(log, "end")
    assert done.keys() >= {"release 1 × tea of 1", "release 2 × cup of 1", "refund 1"}
    assert not [action for action in done if action.startswith(("ship", "charge"))]


async def test_an_order_that_is_cancelled_in_the_middle_takes_everything_back(
    client: Client, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "_SECONDS", 0.2)
    handle = await order_fulfilment.enqueue(client, ORDER)
    async with asyncio.timeout(20):
        while not actions(log, "begin")["charge 900 cents for 1"]:  # noqa: ASYNC110 - the notes are a file
            await asyncio.sleep(0.01)

    await handle.cancel()

    with pytest.raises(RunCancelledError):
        await handle.wait_for_completion(timeout=20)
    done = actions(log, "end")
    assert done.keys() >= {"release 1 × tea of 1", "release 2 × cup of 1", "refund 1"}
    assert not [action for action in done if action.startswith("ship")]


@pytest.mark.parametrize("module", MODULES)
def test_an_example_runs_on_servers(module: str, amqp_url: str, mongodb_url: str, mongodb_database: str) -> None:
    servers = {"AIKI_AMQP_URL": amqp_url, "AIKI_MONGODB_URL": mongodb_url, "AIKI_MONGODB_DATABASE": mongodb_database}
    orchestrator = subprocess.Popen([sys.executable, "-m", "aiki", "orchestrator"], cwd=ROOT, env=os.environ | servers)
    try:
        printed = run_example(module, "--servers", **servers)
    finally:
        orchestrator.send_signal(signal.SIGTERM)
        orchestrator.wait(timeout=20)

    assert "steps=" in printed or "order 1001: payment=" in printed


def test_the_demo_shows_a_run_that_survives_its_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "is killed with SIGKILL" in done.stdout
    assert done.stdout.count("✓ ") > 4
    assert "✗ " not in done.stdout.rpartition("aiki runs show")[2].rpartition("result")[2]
    assert list(tmp_path.iterdir()) == []
