"""`aiki runs cancel|retry|wake|pause|resume` and `aiki signal`: moving runs. Each returns once the broker keeps it."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import click

from aiki.cli.output import print_json, remark
from aiki.cli.session import with_client
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle

__all__ = ["say", "signal"]

# What can be said to a run, and how it is told that this was done.
_WORDS: Mapping[str, tuple[Callable[[Handle[Any]], Awaitable[None]], str]] = {
    "cancel": (Handle.cancel, "asked to stop:"),
    "retry": (Handle.retry, "goes on:"),
    "wake": (Handle.wake, "woken:"),
    "pause": (Handle.pause, "asked to pause:"),
    "resume": (Handle.resume, "resumed:"),
}


def say(word: str, run_ids: Sequence[str], as_json: bool, url: str | None) -> None:
    """Say one *word* to any number of runs."""
    say_it_to, done = _WORDS[word]

    async def say_it(client: Client) -> None:
        for run_id in run_ids:
            await say_it_to(client.handle(run_id))

    with_client(say_it, url=url)
    if as_json:
        print_json({"runs": list(run_ids), "done": word})
    for run_id in () if as_json else run_ids:
        remark(f"{done} {run_id}")


def signal(run_id: str, name: str, payload: str, as_json: bool, url: str | None) -> None:
    """Send a run the signal *name*, with a value written as JSON."""
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
