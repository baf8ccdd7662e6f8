"""A proof that cannot fail is none: each seeded defect has to be noticed within a stated number of seeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS, RULES, UNSEEN, Defect

ROOT = Path(__file__).parents[2]

UNCERTAIN = [defect for defect in DEFECTS if defect.is_uncertain]


def notice(defect: Defect, *options: str) -> str:
    """Look whether *defect* is noticed, in a process of its own; gives what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.notice", defect.name, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=58,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name.replace(" ", "-"))
def test_a_seeded_defect_is_noticed(defect: Defect) -> None:
    said = notice(defect)

    assert said.startswith("seed "), said


@pytest.mark.parametrize("defect", UNCERTAIN, ids=lambda defect: defect.name.replace(" ", "-"))
def test_some_defects_show_only_when_nobody_knows_what_was_written(defect: Defect) -> None:
    said = notice(defect, "--certain", "--most", "12")

    assert said.startswith("noticed by 0 of "), said


@pytest.mark.parametrize("defect", UNSEEN, ids=lambda defect: defect.name.replace(" ", "-"))
def test_some_defects_show_nowhere(defect: Defect) -> None:
    """One that shows after all belongs to those that have to be noticed."""
    said = notice(defect)

    assert said.startswith("noticed by 0 of "), said


def test_every_rule_of_the_design_has_a_defect_that_breaks_it() -> None:
    broken = {defect.rule for defect in DEFECTS}

    assert broken.issuperset(RULES)
    assert len(DEFECTS) >= 25
