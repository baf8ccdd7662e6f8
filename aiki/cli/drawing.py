"""Draws runs and their timelines for a terminal. Values in, rich renderables out."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aiki.cli.timeline import Axis, Outcome, Row, Timeline
from aiki.cli.wording import STATUS_STYLES, ago, duration, failure_line, operation_name, shorten, wait_line
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus

__all__ = ["draw_run", "draw_runs", "draw_timeline", "status_text"]

_BARS: dict[Outcome, tuple[str, str]] = {
    Outcome.DONE: ("█", "green"),
    Outcome.FAILED: ("█", "red"),
    Outcome.EXECUTING: ("▒", "blue"),
    Outcome.WAITING: ("┄", "yellow"),
    Outcome.VOID: ("▒", "dim"),
}
_MARKS: dict[Outcome, tuple[str, str]] = {
    Outcome.DONE: ("✓", "green"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.EXECUTING: ("…", "blue"),
    Outcome.WAITING: ("…", "yellow"),
    Outcome.VOID: ("–", "dim"),
}

# Name, attempts, time and mark beside the bars; less than 20 cells of bars say nothing.
_NAME_MAX = 28
_BESIDE = 26
_BAR_MIN = 20


def status_text(status: RunStatus) -> Text:
    """Write a status in its colour."""
    return Text(status.value, style=STATUS_STYLES[status])


def draw_runs(runs: Sequence[RunState], *, now: datetime) -> RenderableType:
    """Draw a list of runs, one line each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "workflow", "status", "created", "took"):
        table.add_column(heading, no_wrap=heading in ("run", "status"))
    for run in runs:
        took = duration((run.finished_at or now) - run.created_at)
        table.add_row(
            Text(run.run_id),
            Text(f"{run.workflow}@{run.version}"),
            status_text(run.status),
            ago(run.created_at, now=now),
            took if run.finished_at else Text(took, style="dim"),
        )
    return table


def draw_run(run: RunState, timeline: Timeline, *, now: datetime, width: int) -> RenderableType:
    """Draw all of a run: what it is, its timeline, its errors, and its end."""
    parts: list[RenderableType] = [_heading(run, now=now), _facts(run, now=now, width=width)]
    if timeline.rows:
        parts += ["", draw_timeline(timeline, width=width)]
    parts += _failures(timeline, width=width)
    for wait in run.waits if run.status.is_suspended else ():
        parts.append(Text(f"… {operation_name(wait.operation)}: {wait_line(wait, now=now)}", style="yellow"))
    parts += _end(run)
    return Group(*parts)


def draw_timeline(timeline: Timeline, *, width: int) -> RenderableType:
    """Draw each operation as a bar on one axis."""
    name_width = min(max(len(row.name) for row in timeline.rows), _NAME_MAX)
    axis = Axis(timeline, width=max(width - name_width - _BESIDE, _BAR_MIN))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("step", no_wrap=True)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column(_scale(timeline, axis), no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in timeline.rows:
        mark, style = _MARKS[row.outcome]
        table.add_row(
            Text(shorten(row.name, name_width)),
            str(row.attempts) if row.attempts else "",
            _bar(row, axis),
            duration(row.span),
            Text(f"{mark} {row.note}".rstrip(), style=style),
        )
    return table


def _heading(run: RunState, *, now: datetime) -> Text:
    text = Text.assemble((run.workflow, "bold"), f"@{run.version}  ", status_text(run.status))
    if run.pause_requested and run.status is not RunStatus.PAUSED:
        text.append(" (pausing)", style="magenta")
    if run.cancel_requested and not run.status.is_final:
        text.append(" (cancelling)", style="dim")
    return text.append(f"  created {ago(run.created_at, now=now)}", style="dim")


def _facts(run: RunState, *, now: datetime, width: int) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    everything = (("run", run.run_id), ("input", _value(run.input, width)))
    for name, value in (*everything, *_optional_facts(run, now=now, width=width)):
        facts.add_row(name, Text(value))  # A plain string would be read as markup.
    return facts


def _optional_facts(run: RunState, *, now: datetime, width: int) -> Iterable[tuple[str, str]]:
    if run.key is not None:
        yield "key", run.key
    if run.tags:
        yield "tags", ", ".join(run.tags)
    if run.parent is not None:
        yield "parent", run.parent.run_id
    if run.note is not None:
        yield "says", _value(run.note, width)
    if run.holder is not None and run.status is RunStatus.RUNNING:
        yield "worker", run.holder
    if run.status is RunStatus.SCHEDULED and run.wake_at is not None:
        yield "starts", ago(run.wake_at, now=now)
    if run.recoveries:
        yield "recovered", f"{run.recoveries} of at most {run.recoveries_max} times without progress"
    if run.finished_at is not None:
        yield "took", duration(run.finished_at - run.created_at)
    if run.expires_at is not None:
        yield "expires", ago(run.expires_at, now=now)


def _value(payload: Payload, width: int) -> str:
    return shorten(payload, max(width * 2, 80))


def _scale(timeline: Timeline, axis: Axis) -> str:
    total = duration(max(timeline.end - timeline.start, timedelta()))
    return "0" + total.rjust(axis.width - 1)


def _bar(row: Row, axis: Axis) -> Text:
    cells = [(" ", "")] * axis.width
    # What executed is drawn over what waited: an attempt of a few milliseconds stays visible.
    for segment in sorted(row.segments, key=lambda segment: not segment.is_wait):
        for cell in axis.cells(segment.start, segment.end):
            cells[cell] = _BARS[segment.outcome]
    for cell in axis.breaks:
        cells[cell] = ("╱", "dim")
    return Text.assemble(*((mark * sum(1 for _ in equal), style) for (mark, style), equal in groupby(cells)))


def _failures(timeline: Timeline, *, width: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for row in timeline.rows:
        for segment in row.segments:
            if segment.failure is not None:
                attempt = f", attempt {segment.attempt}" if segment.attempt else ""
                after = duration(segment.end - timeline.start)
                text = f"✗ {row.name}{attempt}, at {after}: {failure_line(segment.failure)}"
                lines.append(Text(shorten(text, width * 3), style="red", overflow="fold"))
    return ["", *lines] if lines else []


def _end(run: RunState) -> list[RenderableType]:
    if run.status is RunStatus.COMPLETED and run.result is not None:
        return ["", Text.assemble(("✓ ", "green"), ("result ", "dim"), run.result, overflow="fold")]
    if run.failure is not None and run.status.is_final:
        return ["", *_failure_chain(run.failure)]
    return []


def _failure_chain(failure: Failure) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"✗ {failure.type}: {failure.message}", style="red", overflow="fold")]
    cause = failure.cause
    while cause is not None:
        lines.append(Text(f"  because of {failure_line(cause)}", style="red", overflow="fold"))
        cause = cause.cause
    return lines
