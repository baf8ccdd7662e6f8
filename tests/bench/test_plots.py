"""Pictures: what is drawn is what was measured."""

from pathlib import Path

import pytest

from aiki.cli.measuring import Measured
from bench.plots import cost_by_step, draw, draw_histogram, per_second


def test_speed_is_counted_in_whole_parts_of_the_time() -> None:
    measured = Measured(seconds=0.6, taken=[0.1] * 5, ended=[0.0, 0.1, 0.2, 0.3, 0.55])

    assert per_second(measured) == [12.0, 4.0]


def test_the_cost_of_a_step_is_the_time_between_stamps() -> None:
    assert cost_by_step([number * 2.0 for number in range(101)]) == pytest.approx([2.0, 2.0])


def test_pictures_are_small(tmp_path: Path) -> None:
    draw(tmp_path / "line.svg", [1.0, 2.0], [3.0, 4.0], x="x", y="y")
    draw_histogram(tmp_path / "bars.svg", [1.0, 2.0, 2.0], x="x")

    assert all(0 < file.stat().st_size < 100_000 for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2
