"""`aiki runs list|show|watch`: looking at runs."""

from typing import Any

import click

from aiki.cli.parameters import DURATION, as_json, url_option
from aiki.engine.status import RunStatus

__all__ = ["list_runs", "show", "watch"]

_STATUSES = [status.value for status in RunStatus]


@click.command("list")
@click.argument("workflow", required=False)
@click.option("--status", "statuses", type=click.Choice(_STATUSES), multiple=True, help="Only these; repeatable.")
@click.option("--version", help="Only this version of the workflow.")
@click.option("--tag", help="Only runs with this tag.")
@click.option("--since", type=DURATION, help="Only runs created within it, such as 30m or 7d.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--cursor", help="Continue where a list ended.")
@as_json
@url_option
def list_runs(**given: Any) -> None:
    """List runs, newest first; those of WORKFLOW only, if it is given."""
    from aiki.cli import runs

    runs.list_runs(**given)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
@url_option
def show(**given: Any) -> None:
    """Draw the timeline of RUN, or of the newest run: each task, its attempts, waits, durations and errors."""
    from aiki.cli import runs

    runs.show(**given)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
@url_option
def watch(**given: Any) -> None:
    """Follow RUN, or the newest run, until it is over. Fails if the run does."""
    from aiki.cli import runs

    runs.watch(**given)
