"""Two sides in one table."""

from collections.abc import Sequence

from bench.compare import ratios
from bench.figures import Figures, Line, lines_of, number

__all__ = ["beside_table"]


def beside_table(row: str, names: tuple[str, str], pairs: Sequence[tuple[Figures, Figures]]) -> str:
    """Write the figures of both sides for people: medians, the range of the rounds, and the ratio of first to second.

    The ratio is the median of those of rounds that followed each other. What only one side has stands alone.
    """
    first, second = ({line.figure: line for line in lines_of(row, side)} for side in zip(*pairs, strict=True))
    ratio_of = {one.figure: one for one in ratios([(_keyed(row, b), _keyed(row, a)) for a, b in pairs])}
    text = [f"\n{row:<28}{names[0]:<26}{names[1]:<26}{' / '.join(names)}"]
    for figure in dict.fromkeys((*first, *second)):
        ratio = ratio_of.get(figure)
        told = f"{ratio.ratio:.2f}  [{ratio.lowest:.2f} – {ratio.highest:.2f}]" if ratio else ""
        text.append(f"  {figure:<26}{_told(first.get(figure)):<26}{_told(second.get(figure)):<26}{told}".rstrip())
    return "\n".join(text)


def _told(line: Line | None) -> str:
    if line is None:
        return ""
    return f"{number(line.median)}  [{number(line.lowest)} – {number(line.highest)}]"


def _keyed(row: str, figures: Figures) -> dict[tuple[str, str], float]:
    return {(row, figure): value for figure, value in figures.items()}
