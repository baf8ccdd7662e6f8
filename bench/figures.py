"""Figures: what a round yields, and how several rounds become one line of a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

__all__ = ["Figures", "Line", "lines_of", "percentile", "table", "write_json"]

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


def percentile(values: Sequence[float], share: float) -> float:
    """Find the value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


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
        spread = f"  [{_number(line.lowest)} – {_number(line.highest)}]" if line.rounds > 1 else ""
        text.append(f"  {line.figure:<{width}}  {_number(line.median):>10}{spread}")
    return "\n".join(text)


def write_json(file: Path, lines: Sequence[Line], *, conditions: Mapping[str, object]) -> None:
    """Write *lines* for programs, with the *conditions* that they were measured under."""
    content = {"conditions": conditions, "lines": [asdict(line) for line in lines]}
    file.write_text(json.dumps(content, indent=2) + "\n")


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
