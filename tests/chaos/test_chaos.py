"""A short chaos run: what `make chaos` does for minutes, on one broker and one store and for seconds."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from aiki.testing.chaos.chaos import Plan, run_chaos
from aiki.testing.chaos.cluster import Size
from aiki.testing.chaos.faults import KINDS, draw_faults
from aiki.testing.chaos.report import table
from tests.scenarios.cluster import eventually

# Those that are over soon. The others need brokers that start again, a second store or minutes of work, and are for
# `make chaos`. A seed draws ten of them or more, and each run of the suite has another seed.
SLOW = (
    "burst",
    "broker-kill",
    "broker-leader",
    "broker-restart",
    "broker-black",
    "broker-wipe",
    "store-restart",
    "store-black",
    "store-step-down",
)
QUICK = [kind for kind in KINDS if not kind.startswith(SLOW) and not kind.endswith("-long")]
PATIENCE = 60.0


@pytest.mark.servers
@pytest.mark.timeout(240)
async def test_nothing_is_lost_doubled_or_wrong_whatever_breaks(tmp_path: Path) -> None:
    plan = Plan(
        seed=secrets.randbelow(10**6),
        faults=10,
        runs=200,
        seconds=40.0,
        kinds=QUICK,
        every=0.5,
        size=Size(brokers=1, stores=1, orchestrators=2, workers=2, clients=1, in_flight=60),
    )
    print(f"seed {plan.seed}")

    chaos = await run_chaos(plan, tmp_path / "chaos", say=print)

    print(table(chaos.report))
    assert not chaos.violations, "\n".join(map(str, chaos.violations))
    assert chaos.report.faults >= 5
    assert chaos.report.runs >= 200


def test_a_seed_draws_the_same_faults_and_each_kind_once_before_it_repeats_one() -> None:
    kinds = list(KINDS)

    faults = draw_faults(Random(7), kinds=kinds, every=2.0)

    assert faults == draw_faults(Random(7), kinds=kinds, every=2.0)
    assert {fault.kind for fault in faults[: len(kinds)]} == set(kinds)
    assert [fault.kind for fault in faults].count("broker-wipe") == 1


@pytest.mark.servers
@pytest.mark.timeout(120)
def test_an_interrupted_chaos_run_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "aiki.testing.chaos", "--seed", "1", "--only", "worker-cut"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as chaos:
        eventually(lambda: len(_processes_in(tmp_path)) > 1, "servers to start")

        chaos.send_signal(signal.SIGINT)
        chaos.wait(PATIENCE)

    eventually(lambda: not _processes_in(tmp_path), "all processes to end")
    assert chaos.returncode != 0
    assert not list(tmp_path.iterdir())


def _processes_in(folder: Path) -> list[int]:
    """Find the processes that were told to work in *folder*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # It has just ended.
        if int(entry.name) != os.getpid() and f"{folder}/aiki-chaos-".encode() in words:
            found.append(int(entry.name))
    return found
