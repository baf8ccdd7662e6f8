"""What the samples say: which curves are flat after the warm-up, and a picture of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, mean, median

from bench.soak.samples import Sample

__all__ = ["Trend", "draw", "table", "trends"]

VETERANS = ("veteran orchestrator", "veteran worker", "client")

# How much of what a process has comes and goes with what it happens to hold, without meaning anything.
_TOLERANCES = {"MiB": 6.0, "objects": 6_000, "tasks": 30, "descriptors": 4, "threads": 4, "sockets": 4}
_SHARE_TOLERATED = 0.05

_PANELS = (
    ("memory, MiB", tuple(f"{who}/MiB" for who in VETERANS)),
    ("descriptors, tasks", tuple(f"{who}/{what}" for who in VETERANS for what in ("descriptors", "tasks"))),
    ("connections", ("rabbitmq/connections", "mongodb/connections", "rabbitmq/queues")),
    (
        "messages",
        ("rabbitmq/messages in aiki.events", "rabbitmq/messages for workers", "rabbitmq/messages in aiki.retry"),
    ),
    ("documents", ("mongodb/documents in runs", "mongodb/documents in journal", "mongodb/unfinished runs")),
)


@dataclass(frozen=True, slots=True)
class Trend:
    """How one number went on after the warm-up."""

    name: str
    median: float
    first_quarter: float
    last_quarter: float
    per_hour: float
    """The slope of the line through all samples."""

    @property
    def is_flat(self) -> bool:
        """Whether the last quarter is no higher than the first one, but for noise, or the slope says nothing."""
        tolerated = max(_TOLERANCES.get(self.name.partition("/")[2], 0.0), _SHARE_TOLERATED * abs(self.median))
        return min(self.last_quarter - self.first_quarter, self.per_hour) <= tolerated


def trends(samples: Sequence[Sample], *, after: float) -> Sequence[Trend]:
    """Fit a line to every number that most samples have, from *after* seconds on."""
    counted = [sample for sample in samples if sample["at"] >= after]
    names = sorted({name for sample in counted for name in sample if name != "at"})
    return [found for name in names if (found := _trend(name, counted)) is not None]


def _trend(name: str, samples: Sequence[Sample]) -> Trend | None:
    points = [(sample["at"], sample[name]) for sample in samples if name in sample]
    if len(points) < max(4, len(samples) // 2):
        return None
    times, values = [at for at, _ in points], [value for _, value in points]
    quarter = max(len(values) // 4, 1)
    return Trend(
        name,
        median=median(values),
        first_quarter=mean(values[:quarter]),
        last_quarter=mean(values[-quarter:]),
        per_hour=linear_regression(times, values).slope * 3600,
    )


def table(found: Sequence[Trend]) -> str:
    """Write *found* as a table in Markdown."""
    lines = ["| What | Median | First quarter | Last quarter | Per hour |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.name.replace('/', ', ')} | {one.median:.1f} | {one.first_quarter:.1f} | {one.last_quarter:.1f} "
        f"| {one.per_hour:+.1f} |"
        for one in found
    ]
    return "\n".join(lines)


def draw(samples: Sequence[Sample], file: Path, *, title: str) -> None:
    """Draw the curves, one panel for each kind."""
    from matplotlib.figure import Figure  # Only who wants a picture needs it.

    figure = Figure(figsize=(8, 9.5))
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    for panel, (label, names) in zip(panels, _PANELS, strict=True):
        for name in names:
            points = [(sample["at"] / 60, sample[name]) for sample in samples if name in sample]
            if points:
                panel.plot(
                    [at for at, _ in points], [value for _, value in points], label=name.replace("/", ", "), lw=0.8
                )
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=6, loc="best", ncols=3)
    panels[0].set_title(title, fontsize=9)
    panels[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(file, dpi=72)
