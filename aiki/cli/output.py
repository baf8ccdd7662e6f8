"""Where output goes: data to standard output, as tables for people or JSON for programs; remarks to standard error."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = ["draw", "now", "print_json", "print_json_line", "remark", "width"]


@cache
def _console(stream: Any, columns: int) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=columns or None)


def _output() -> Console:
    # A pipe has no width: lines long enough for identifiers and names, to be cut by whoever reads.
    return _console(sys.stdout, 0 if sys.stdout.isatty() else 140)


def draw(renderable: RenderableType) -> None:
    """Write for people, on standard output. Whatever is in it cannot command the terminal."""
    _output().print(_Harmless(renderable))


class _Harmless:
    """Draws what it is given with the control characters in its texts made visible.

    An input, a failure, a dead letter: anybody may have written them, and a terminal would obey.
    """

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(_VISIBLE), segment.style)


# Unicode has a picture for each of the old ones.
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if code != ord("\n")} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)


def width() -> int:
    """Tell how many columns there are to draw in."""
    return _output().width


def print_json(value: Any) -> None:
    """Write one JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Write one JSON value on one line of standard output, at once: part of a stream."""
    click.echo(json.dumps(value, ensure_ascii=False))


def remark(text: str) -> None:
    """Say something to the person, on standard error."""
    click.echo(text, err=True)


def now() -> datetime:
    """Tell the time, as runs have it: milliseconds of UTC."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
