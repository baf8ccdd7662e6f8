"""Comparing revisions: a difference is one when the rounds agree about it, and when it is larger than the noise."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.compare import main, ratios, ratios_table

ROOT = Path(__file__).parents[2]

SPEED = ("throughput", "runs/s")


def test_a_difference_that_all_rounds_agree_about_is_told_with_its_spread() -> None:
    (found,) = ratios(
        [({SPEED: 100.0}, {SPEED: 150.0}), ({SPEED: 110.0}, {SPEED: 154.0}), ({SPEED: 90.0}, {SPEED: 144.0})]
    )

    assert (found.base, found.head) == (100.0, 150.0)
    assert (found.lowest, found.ratio, found.highest) == (1.4, 1.5, 1.6)
    assert found.verdict == "+50%"
    assert "1.40 – 1.60" in ratios_table([found], base="v1")


def test_rounds_that_disagree_show_no_difference() -> None:
    (found,) = ratios([({SPEED: 100.0}, {SPEED: 200.0}), ({SPEED: 100.0}, {SPEED: 90.0})])

    assert found.verdict == "none: the rounds disagree"


def test_a_small_difference_is_noise() -> None:
    (found,) = ratios([({SPEED: 100.0}, {SPEED: 110.0}), ({SPEED: 100.0}, {SPEED: 105.0})])

    assert found.verdict == "none: within the noise"


def test_what_only_one_revision_measures_is_left_out() -> None:
    assert ratios([({("idle", "old"): 1.0}, {SPEED: 1.0})]) == []


def test_a_revision_beside_itself_takes_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(clone)], check=True)
    monkeypatch.chdir(clone)
    monkeypatch.setattr(sys, "argv", ["bench.compare", "HEAD", "counts", "--rounds", "1", "--scale", "0.01"])

    main()

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "counts, entries written per run 3.00 3.00 1.00 1.00 – 1.00 none: the rounds disagree" in lines
    left = subprocess.run(["git", "worktree", "list"], check=True, capture_output=True, text=True)
    assert len(left.stdout.splitlines()) == 1
