"""`aiki runs cancel|retry|wake|pause|resume` and `aiki signal`: moving runs. Each returns once the broker keeps it."""

from typing import Any

import click

from aiki.cli.parameters import as_json, url_option

__all__ = ["cancel", "pause", "resume", "retry", "signal", "wake"]


def _command(name: str, about: str) -> click.Command:
    """Make the command that says one thing to any number of runs."""

    @click.command(name, help=about)
    @click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
    @as_json
    @url_option
    def command(**given: Any) -> None:
        from aiki.cli import controls

        controls.say(name, **given)

    return command


cancel = _command(
    "cancel", "Ask RUNs to stop. Where they wait, asyncio.CancelledError is raised, so that they can clean up."
)
retry = _command("retry", "Let RUNs that failed, were cancelled or dead-lettered go on from where they ended.")
wake = _command("wake", "Let suspended RUNs go on: the nearest timer or retry counts as due.")
pause = _command("pause", "Let RUNs start nothing new until they are resumed.")
resume = _command("resume", "Let paused RUNs go on.")


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@as_json
@url_option
def signal(**given: Any) -> None:
    """Send RUN the signal NAME, with a value written as JSON."""
    from aiki.cli import controls

    controls.signal(**given)
