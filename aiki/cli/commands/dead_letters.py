"""`aiki dead-letters list|show|redrive|discard`: what could not be delivered, decoded, applied or survived."""

from typing import Any

import click

from aiki.cli.parameters import as_json, url_option

__all__ = ["discard", "list_letters", "redrive", "show"]


@click.command("list")
@click.option("--all", "include_done", is_flag=True, help="Those that were redriven or discarded, too.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--cursor", help="Continue where a list ended.")
@as_json
@url_option
def list_letters(**given: Any) -> None:
    """List dead letters, newest first."""
    from aiki.cli import dead_letters

    dead_letters.list_letters(**given)


@click.command()
@click.argument("letter_id", metavar="LETTER")
@as_json
@url_option
def show(**given: Any) -> None:
    """Show LETTER: why it is there, and the original message."""
    from aiki.cli import dead_letters

    dead_letters.show(**given)


@click.command()
@click.argument("letter_ids", metavar="LETTER...", nargs=-1, required=True)
@as_json
@url_option
def redrive(**given: Any) -> None:
    """Send LETTERs on their way again: a run goes on from where it ended, a message goes back to its queue."""
    from aiki.cli import dead_letters

    dead_letters.redrive(**given)


@click.command()
@click.argument("letter_ids", metavar="LETTER...", nargs=-1, required=True)
@as_json
@url_option
def discard(**given: Any) -> None:
    """Mark LETTERs as done with. They are listed with --all."""
    from aiki.cli import dead_letters

    dead_letters.discard(**given)
