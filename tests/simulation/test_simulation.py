"""Seeded simulations: nothing is lost, whatever happens; and a seed says all of it."""

import gc
import hashlib
import os
import subprocess
import sys

import pytest

from aiki.testing.simulation import simulation
from aiki.testing.simulation.faults import Fault
from aiki.testing.simulation.profiles import PROFILES, profile_of
from aiki.testing.simulation.shrinking import fewest
from aiki.testing.simulation.tally import Tally, tally_of

# What every change of the code is tried on. `make simulate SEEDS=0..100000` goes further.
FIXED_SEEDS = "0..120"
FRESH_SEEDS = "fresh:30"

# Seconds. It takes a fifth of that, unless the machine has much else to do.
PATIENCE = 170
pytestmark = pytest.mark.timeout(180)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Simulate in a process of its own: the order of sets is decided when a process begins."""
    return subprocess.run(
        [sys.executable, "-m", "aiki.testing.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("seeds", [FIXED_SEEDS, FRESH_SEEDS])
def test_every_promise_holds_whatever_goes_wrong(seeds: str) -> None:
    done = simulate(seeds)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("seed", ["3", "24", "381"])
def test_the_same_seed_gives_the_same_trace_byte_for_byte(seed: str) -> None:
    first, second = simulate(seed, "--trace"), simulate(seed, "--trace")

    assert first.stdout.count("\n") > 50, first.stderr
    assert hashlib.sha256(first.stdout.encode()).digest() == hashlib.sha256(second.stdout.encode()).digest()


def test_what_was_simulated_before_makes_no_difference() -> None:
    alone = simulate("7", "--trace").stdout

    together = simulate("5..8", "--trace").stdout

    assert together.endswith(alone)


def test_no_order_of_a_set_makes_a_difference() -> None:
    program = (
        "from aiki.testing.simulation.simulation import simulate; print(*simulate(9, traced=True).trace, sep=chr(10))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    )

    assert first.count("\n") > 50
    assert first == second


def test_every_profile_has_its_share_of_the_seeds() -> None:
    drawn = {profile_of(seed).name for seed in range(120)}

    assert drawn == {profile.name for profile in PROFILES}


def test_of_many_faults_those_are_left_that_it_takes() -> None:
    faults = [Fault(step, kind, 0.5) for step in range(1, 9) for kind in ("break", "freeze")]

    def fails(some: list[Fault]) -> bool:
        return Fault(3, "break", 0.5) in some and Fault(7, "freeze", 0.5) in some

    assert fewest(faults, fails) == [Fault(3, "break", 0.5), Fault(7, "freeze", 0.5)]


def test_a_fault_can_be_written_down_and_read() -> None:
    faults = [Fault(3, "break", 0.5), Fault(1, "die-halfway", 0.125, aim="lesson")]

    assert [Fault.load(str(fault)) for fault in faults] == faults


def test_faults_that_aim_at_what_never_comes_are_not_counted() -> None:
    faults = [Fault(1, "freeze", 0.1, aim="end"), Fault(2, "break", 0.5), Fault(40, "freeze", 0.1, aim="end")]

    report = simulation.simulate(7, faults=faults)

    assert report.steps > 40
    assert report.struck == faults[1::-1]
    tally = Tally()
    tally.count(report)
    assert tally.faults == {"freeze": 1, "break": 1}


@pytest.mark.parametrize(
    ("name", "deeds"),
    [
        ("leases", ("leases renewed", "leases expired", "words to leased runs")),
        ("neglect", ("overdue timers fired", "orders given again", "holders asked", "holders given up")),
    ],
)
def test_what_is_seldom_needed_happens_often(name: str, deeds: tuple[str, ...]) -> None:
    seeds = [seed for seed in range(1000) if profile_of(seed).name == name][:25]
    gc.freeze()  # Each simulation ends with a collection, which need not look at what pytest keeps.

    tally = tally_of(seeds)

    gc.unfreeze()
    assert {deed: tally.deeds[deed] for deed in deeds if tally.deeds[deed] < 3} == {}
