"""`python -m bench.report FIGURES PAGE`: put what was measured into a page of the documentation.

The page has a place for it, between two comments; all else on it is written by people.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import number

__all__ = ["BEGIN", "END", "main", "page_with", "tables"]

BEGIN, END = "<!-- measured: make bench-figures -->", "<!-- end -->"


def main() -> None:
    """Write the tables into the page."""
    figures, page = map(Path, sys.argv[1:])
    page.write_text(page_with(page.read_text(), tables(json.loads(figures.read_text()))))


def page_with(page: str, text: str) -> str:
    """Put *text* into the place for it.

    Raises:
        ValueError: the page has none.
    """
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def tables(measured: Mapping[str, Any]) -> str:
    """Write conditions, limits and all figures as Markdown."""
    conditions = ", ".join(f"{key} {value}" for key, value in measured["conditions"].items())
    return "\n".join((f"Conditions: {conditions}.\n", *_limits(measured["limits"]), "", *_figures(measured["lines"])))


def _limits(limits: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {one['row']}, {one['figure']} | {number(one['measured'])} | {number(one['limit'])} | {one['share']:.0%} |"
        for one in limits
    ]
    return ["| | Aiki | the limit | reached |", "|---|---|---|---|", *rows]


def _figures(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {line['row']} | {line['figure'].strip()} | {number(line['median'])} "
        f"| {number(line['lowest'])} – {number(line['highest'])} |"
        for line in lines
    ]
    return ["| Row | Figure | Median | Rounds |", "|---|---|---|---|", *rows]


if __name__ == "__main__":
    main()
