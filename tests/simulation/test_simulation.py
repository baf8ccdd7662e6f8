"""Seeded simulations: nothing is lost, whatever happens; and a seed says all of it."""

import hashlib
import subprocess
import sys

import pytest

# What every change of the code is tried on. `make simulate SEEDS=0..100000` goes further.
FIXED_SEEDS = "0..120"
FRESH_SEEDS = "fresh:30"


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Simulate in a process of its own: the order of sets is decided when a process begins."""
    return subprocess.run(
        [sys.executable, "-m", "aiki.testing.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=55,
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
