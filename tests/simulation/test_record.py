"""Long runs: may be ended at any moment, and go on where they were."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.testing.simulation import __main__ as command
from aiki.testing.simulation import pool, record, tally
from aiki.testing.simulation.record import (
    Record,
    RecordInUseError,
    missing,
    opened,
    simulated_sources,
    summary,
)
from aiki.testing.simulation.tally import Tally, tally_of

SEEDS = range(3000, 3080)
REVISION, SIMULATION = "abc", "def"


def begin(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "aiki.testing.simulation", f"{SEEDS.start}..{SEEDS.stop}", "--record", str(path)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_something_is_kept(path: Path, running: "subprocess.Popen[str]") -> None:
    """A file tells nobody that it was written."""
    end = monotonic() + 30
    while not path.exists():
        assert monotonic() < end
        assert running.poll() is None, running.communicate()
        sleep(0.01)


def kept(path: Path) -> dict[str, Any]:
    """What the record has of the only revision in it."""
    (facts,) = json.loads(path.read_text())["revisions"].values()
    return dict(facts)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_run_that_was_ended_goes_on_and_no_seed_is_lost_or_counted_twice(
    how: signal.Signals, code: int, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    with begin(path) as first:
        wait_until_something_is_kept(path, first)
        first.send_signal(how)
        first.communicate(timeout=30)  # Also waits for its processes: they have the same pipe.
    before = kept(path)

    with begin(path) as second:
        said, complaints = second.communicate(timeout=50)

    assert (first.returncode, second.returncode) == (code, 0), complaints
    assert 0 < before["tally"]["scenarios"] < len(SEEDS)
    assert said.startswith(f"{len(SEEDS) - before['tally']['scenarios']} of {len(SEEDS)} seeds are left")
    after = kept(path)
    assert after["done"] == [[SEEDS.start, SEEDS.stop]]
    assert after["tally"]["scenarios"] == len(SEEDS)


def test_a_long_run_says_how_to_see_what_fails_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Tally(scenarios=1, failed={7: ["a run is lost"]})
    monkeypatch.setattr(command, "tallies", lambda blocks, *, workers: [(range(7, 8), failed)])

    code = command.main(["7", "--record", str(tmp_path / "record.json")])

    assert code == 1
    assert "again: python -m aiki.testing.simulation 7 --trace --faults" in capsys.readouterr().out


def test_what_was_done_is_counted_as_if_it_had_been_done_at_once(tmp_path: Path) -> None:
    path, parts = tmp_path / "record.json", [tally_of(range(number, number + 2)) for number in (0, 2, 4)]
    whole = tally_of(range(6))

    for number in (1, 0, 2):
        with opened(path) as record:
            record.keep(range(2 * number, 2 * number + 2), parts[number], revision=REVISION, simulation=SIMULATION)

    part = Record(path).part(REVISION)
    assert part.done == [[0, 6]]
    assert replace(part.tally, processor_seconds=0.0) == replace(whole, processor_seconds=0.0)
    assert part.simulations == Counter({SIMULATION: 6})


def test_revisions_are_kept_apart_and_failures_are_shown(tmp_path: Path) -> None:
    failed = Tally(scenarios=10, faults=Counter({"freeze": 1200}), failed={7: ["a run is lost"]})
    with opened(tmp_path / "record.json") as record:
        record.keep(range(10), Tally(scenarios=10), revision="old", simulation=SIMULATION)
        record.keep(range(10), failed, revision="new", simulation=SIMULATION)

    record = Record(tmp_path / "record.json")

    assert record.part("other").done == []
    assert [record.part(name).tally.failed for name in ("old", "new")] == [{}, {7: ["a run is lost"]}]
    text = summary(record)
    assert "| new | 0..10 | 10 | 0 | 0 | 0 | 1,200 | 0.0 | 0.00 | 1 |" in text
    assert "| freeze | 1,200 |" in text
    assert "* seed 7: a run is lost" in text


def test_fresh_seeds_are_those_that_no_revision_has_passed(tmp_path: Path) -> None:
    with opened(tmp_path / "record.json") as record:
        record.keep(
            range(10), Tally(scenarios=10, failed={7: ["a run is lost"]}), revision="old", simulation=SIMULATION
        )
        record.keep(range(20, 30), Tally(scenarios=10), revision="older", simulation=SIMULATION)
        record.keep(range(12, 15), Tally(scenarios=3, failed={13: ["it was"]}), revision="new", simulation=SIMULATION)

    assert record.left(range(25), "new", fresh=True) == [range(7, 8), range(10, 12), range(13, 14), range(15, 20)]
    assert record.left(range(25), "new", fresh=False) == [range(12), range(15, 25)]
    text = summary(record)
    assert "| all | 0..10, 12..15, 20..30 | 23 |" in text
    assert "each counted once: **21** (0..7, 8..10, 12..13, 14..15, 20..30)" in text


def test_a_seed_that_is_simulated_again_is_judged_by_what_simulated_it_last(tmp_path: Path) -> None:
    with opened(tmp_path / "record.json") as record:
        failed = Tally(scenarios=5, failed={2: ["the checker is wrong"], 4: ["a run is lost"]})
        record.keep(range(5), failed, revision="new", simulation=SIMULATION)
        record.keep(range(2, 3), Tally(scenarios=1), revision="new", simulation="mended")

    again = Record(tmp_path / "record.json")

    assert again.part("new").tally.failed == {4: ["a run is lost"]}
    assert again.left(range(5), "new", fresh=True) == [range(4, 5)]
    assert again.left(range(5), "new", fresh=False) == []


def test_a_revision_is_what_a_process_imports_that_simulates() -> None:
    program = """
import sys
from aiki.testing.simulation import tally
tally.tally_of((0, 3, 8, 11))
for name, module in sys.modules.items():
    if name.partition(".")[0] in ("aiki", "broker_topology"):
        print(module.__file__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    sources = simulated_sources()

    assert {Path(line) for line in done.stdout.splitlines()} - set(sources) == {Path(tally.__file__)}
    parts = {"/".join(path.relative_to(record.PACKAGE.parent).parts) for path in sources}
    assert {"aiki/engine/decide.py", "aiki/adapters/store/embedded/runs.py", "broker_topology/layout.py"} <= parts
    assert not [part for part in parts if part.startswith(("aiki/cli", "aiki/adapters/store/mongodb"))]


def test_a_record_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with begin(path) as running:
        wait_until_something_is_kept(path, running)

        with pytest.raises(RecordInUseError), opened(path):
            pass

        running.kill()


def test_processes_that_have_done_much_are_replaced_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BLOCKS_PER_PROCESS", 1)

    done = list(pool.tallies(pool.in_blocks(range(7), 2), workers=2))
    gc.unfreeze()

    assert sorted(seed for block, _ in done for seed in block) == list(range(7))
    assert sum(tally.scenarios for _, tally in done) == 7


@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))), first=st.integers(0, 60), size=st.integers(0, 40)
)
def test_what_is_missing_is_what_was_not_done(spans: Sequence[tuple[int, int]], first: int, size: int) -> None:
    record = Record(Path("/nowhere"))
    part = record.part(REVISION)
    part.add([range(start, start + number) for start, number in spans])

    left = [seed for span in missing(range(first, first + size), part.done) for seed in span]

    done = {seed for start, number in spans for seed in range(start, start + number)}
    assert left == [seed for seed in range(first, first + size) if seed not in done]
