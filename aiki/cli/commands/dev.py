"""`aiki dev`: everything in one process, without servers."""

from typing import Any

import click

from aiki.cli.parameters import app_option, concurrency_option

__all__ = ["dev"]


@click.command()
@app_option
@click.option("--data", metavar="FILE", help="Where runs are kept.  [default: .aiki/dev.db]")
@concurrency_option
def dev(**given: Any) -> None:
    """Run everything in one process, without servers: orchestrator, worker, and a database file.

    In another terminal, `aiki enqueue` and `aiki runs` find it by themselves. Stop it whenever you like, or
    kill it: the next one goes on where this one was.
    """
    from aiki.cli import dev

    dev.serve(**given)
