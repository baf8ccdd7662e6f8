"""What was measured gets to its place in a page, and nowhere else."""

import pytest

from bench.report import BEGIN, END, page_with, tables

MEASURED = {
    "conditions": {"cores": 2, "scale": 0.4},
    "limits": [{"row": "latency", "figure": "p50 ms", "measured": 20.0, "limit": 10.0, "share": 0.5}],
    "lines": [
        {"row": "idle", "figure": "  of it worker", "median": 1.0, "lowest": 0.5, "highest": 2000.0, "rounds": 3}
    ],
}


def test_new_figures_take_the_place_of_the_old_ones() -> None:
    page = page_with(f"Words.\n{BEGIN}\nold\n{END}\nMore.\n", "new")

    assert page == f"Words.\n{BEGIN}\nnew\n{END}\nMore.\n"


def test_a_page_without_a_place_is_left_alone() -> None:
    with pytest.raises(ValueError, match="unpack"):
        page_with("Words.", "new")


def test_tables_have_conditions_limits_and_figures() -> None:
    text = tables(MEASURED)

    assert "cores 2, scale 0.4" in text
    assert "| latency, p50 ms | 20.0 | 10.0 | 50% |" in text
    assert "| idle | of it worker | 1.00 | 0.50 – 2,000 |" in text
