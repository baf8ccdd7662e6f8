"""Figures: what a round yields, and how several rounds become one line of a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

__all__ = ["RAW", "Figures", "Limit", "Line", "limits", "limits_table", "lines_of", "number", "table", "write_json"]

RAW = "raw"
"""What the name of a row of the limit begins with."""

# The figures that a limit says something about; of these, less is better.
LESS_IS_BETTER = (
    *("CPU s per 1,000 runs", "p50 ms", "p99 ms"),
    *("one at a time p50 ms", "one at a time p99 ms"),
)
COMPARED = ("runs/s", "accepted runs/s", "backlog worked off, runs/s", *LESS_IS_BETTER)

Figures = Mapping[str, float]
"""What one round measured: the name with its unit, and the value."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure over all rounds."""

    row: str
    figure: str
    median: float
    lowest: float
    highest: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure, what the same messages and writes take without an engine, and the share of that limit we reach."""

    row: str
    figure: str
    measured: float
    limit: float
    share: float


def lines_of(row: str, rounds: Sequence[Figures]) -> list[Line]:
    """Sum up the rounds of one row."""
    lines = []
    for figure in rounds[0]:
        values = [figures[figure] for figures in rounds]
        lines.append(Line(row, figure, median(values), min(values), max(values), len(values)))
    return lines


def table(lines: Sequence[Line]) -> str:
    """Write *lines* for people."""
    width = max((len(line.figure) for line in lines), default=0)
    text = []
    row = ""
    for line in lines:
        if line.row != row:
            row = line.row
            text.append(f"\n{row}")
        spread = f"  [{number(line.lowest)} – {number(line.highest)}]" if line.rounds > 1 else ""
        text.append(f"  {line.figure:<{width}}  {number(line.median):>10}{spread}")
    return "\n".join(text)


def limits(lines: Sequence[Line]) -> list[Limit]:
    """Compare each row with the one of the same name that does without an engine, where both were measured."""
    medians = {(line.row, line.figure): line.median for line in lines}
    return [
        Limit(
            line.row,
            line.figure,
            line.median,
            raw,
            raw / line.median if line.figure in LESS_IS_BETTER else line.median / raw,
        )
        for line in lines
        if (raw := medians.get((f"{RAW}-{line.row}", line.figure))) is not None and line.figure in COMPARED
    ]


def limits_table(compared: Sequence[Limit]) -> str:
    """Write for people how near the limit we are."""
    if not compared:
        return ""
    text = [f"\nof the limit{'measured':>34}{'limit':>12}{'reached':>10}"]
    text += [
        f"  {f'{one.row}, {one.figure}':<34}{number(one.measured):>10}{number(one.limit):>12}{one.share:>9.0%}"
        for one in compared
    ]
    return "\n".join(text)


def write_json(
    file: Path, lines: Sequence[Line], compared: Sequence[Limit], *, conditions: Mapping[str, object]
) -> None:
    """Write *lines* and limits for programs, with the *conditions* that they were measured under."""
    content = {
        "conditions": conditions,
        "lines": [asdict(line) for line in lines],
        "limits": [asdict(one) for one in compared],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def number(value: float) -> str:
    """Write *value* with about three digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
