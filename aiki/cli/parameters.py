"""Arguments and options that several commands take."""

from datetime import timedelta
from typing import Any

import click

from aiki.errors import shortened

__all__ = ["DURATION", "app_option", "as_json", "concurrency_option", "url_option"]


class _Duration(click.ParamType[timedelta]):
    """Seconds, or such as ``30m`` and ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it, or fail as a usage error."""
        from aiki.config import DURATION_MAX, parse_duration

        span = parse_duration(value)
        if not isinstance(span, timedelta) or not timedelta() < span <= DURATION_MAX:
            allowed = "give seconds, or such as 500ms, 30s, 15m, 12h, 30d, and at most 100 years"
            self.fail(f"{shortened(value)} is no duration: {allowed}", param, ctx)
        return span


DURATION = _Duration()

app_option = click.option(
    "--app", "apps", multiple=True, metavar="MODULE[:NAME]", help="Where workflows and tasks are; repeatable."
)

as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
"""The option that every command that prints data has."""

concurrency_option = click.option(
    "--concurrency", type=click.IntRange(1, 10_000), help="How many runs to hold at the same time."
)

url_option = click.option(
    "--url",
    metavar="URL",
    help="The broker: amqp://… or embedded:PATH. Otherwise AIKI_AMQP_URL, or a running aiki dev.",
)
"""The option that every command of a client has."""
