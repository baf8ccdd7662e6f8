"""Kinds of parameters that several commands take."""

from datetime import timedelta
from typing import Any

import click

from aiki.config import DURATION_MAX, parse_duration
from aiki.errors import shortened

__all__ = ["DURATION"]


class _Duration(click.ParamType[timedelta]):
    """Seconds, or such as ``30m`` and ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it, or fail as a usage error."""
        span = parse_duration(value)
        if not isinstance(span, timedelta) or not timedelta() < span <= DURATION_MAX:
            allowed = "give seconds, or such as 500ms, 30s, 15m, 12h, 30d, and at most 100 years"
            self.fail(f"{shortened(value)} is no duration: {allowed}", param, ctx)
        return span


DURATION = _Duration()
