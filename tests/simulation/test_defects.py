"""A proof that cannot fail is none: each seeded defect has to be noticed within a stated number of seeds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS, Defect

ROOT = Path(__file__).parents[2]

SEEDS = "0..150"
"""Within so many each of them has to be noticed; most are within forty."""


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name.replace(" ", "-"))
def test_a_seeded_defect_is_noticed(defect: Defect, tmp_path: Path) -> None:
    for package in ("aiki", "broker_topology"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    broken = tmp_path / defect.path
    broken.write_text(defect.applied_to(broken.read_text()))

    done = subprocess.run(
        [sys.executable, "-m", "aiki.testing.simulation", SEEDS, "--workers", "1", "--enough", "1", "--brief"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=58,
        check=False,
    )

    assert "fails:" in done.stdout, done.stdout + done.stderr[-2000:]
