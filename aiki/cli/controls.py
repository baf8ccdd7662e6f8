"""`aiki runs cancel|retry|wake|pause|resume` and `aiki signal`: moving runs. Each returns once the broker keeps it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import click

from aiki.cli.output import as_json, print_json, remark
from aiki.cli.session import url_option, with_client
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle

__all__ = ["cancel", "pause", "resume", "retry", "signal", "wake"]

_Say = Callable[[Handle[Any]], Awaitable[None]]


def _command(name: str, about: str, done: str, say: _Say) -> click.Command:
    """Make the command that says one thing to any number of runs."""

    @click.command(name, help=about)
    @click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
    @as_json
    @url_option
    def command(run_ids: tuple[str, ...], as_json: bool, url: str | None) -> None:
        async def say_it(client: Client) -> None:
            for run_id in run_ids:
                await say(client.handle(run_id))

        with_client(say_it, url=url)
        if as_json:
            print_json({"runs": list(run_ids), "done": name})
        for run_id in () if as_json else run_ids:
            remark(f"{done} {run_id}")

    return command


cancel = _command(
    "cancel",
    "Ask RUNs to stop. Where they wait, asyncio.CancelledError is raised, so that they can clean up.",
    "asked to stop:",
    Handle.cancel,
)
retry = _command(
    "retry",
    "Let RUNs that failed, were cancelled or dead-lettered go on from where they ended.",
    "goes on:",
    Handle.retry,
)
wake = _command("wake", "Let suspended RUNs go on: the nearest timer or retry counts as due.", "woken:", Handle.wake)
pause = _command("pause", "Let RUNs start nothing new until they are resumed.", "asked to pause:", Handle.pause)
resume = _command("resume", "Let paused RUNs go on.", "resumed:", Handle.resume)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@as_json
@url_option
def signal(run_id: str, name: str, payload: str, as_json: bool, url: str | None) -> None:
    """Send RUN the signal NAME, with a value written as JSON."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="JSON") from error

    async def send(client: Client) -> None:
        await client.handle(run_id).send(name, value)

    with_client(send, url=url)
    if as_json:
        print_json({"runs": [run_id], "done": "signal", "signal": name})
    else:
        remark(f"sent {name} to {run_id}")
