"""Kinds of parameters that several commands take."""

from datetime import timedelta
from typing import Any

import click

from aiki.config import parse_duration

__all__ = ["DURATION"]


class _Duration(click.ParamType[timedelta]):
    """Seconds, or such as ``30m`` and ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it, or fail as a usage error."""
        span = parse_duration(value)
        if not isinstance(span, timedelta) or span <= timedelta():
            self.fail(f"{value!r} is no duration: give seconds, or such as 500ms, 30s, 15m, 12h, 30d", param, ctx)
        return span


DURATION = _Duration()
