"""`aiki enqueue`: starting a run from the command line."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import click

from aiki.cli.app import App, load_app
from aiki.cli.drawing import status_text
from aiki.cli.output import draw, print_json, remark
from aiki.cli.session import settings_of, with_client
from aiki.cli.shapes import run_shape
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import ConfigurationError, InvalidArgumentsError, RunEndedError
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle
from aiki.sdk.options import OnConflict, WorkflowOptions
from aiki.sdk.workflow import Workflow

__all__ = ["enqueue"]


_Start = Callable[[Client], Awaitable[Handle[Any]]]
"""Starts what was ordered. Whatever could be checked without a broker has been."""


def enqueue(
    workflow: str,
    value: str,
    apps: Sequence[str],
    version: str | None,
    wait: bool,
    timeout: timedelta | None,
    key: str | None,
    use_existing: bool,
    delay: timedelta | None,
    tags: Sequence[str],
    as_json: bool,
    url: str | None,
) -> None:
    """Start a run of *workflow* with the arguments in *value*, which is JSON."""
    on_conflict: OnConflict = "use_existing" if use_existing else "raise"
    options = WorkflowOptions(
        idempotency_key=key,
        on_conflict=on_conflict,
        delay=None if delay is None else delay.total_seconds(),
        tags=tuple(tags),
    )
    order = _order(workflow, version, apps, _read(value), options)

    async def start(client: Client) -> tuple[str, RunState | None]:
        handle = await order(client)
        if not wait:
            return handle.id, None
        if not as_json:
            remark(f"run {handle.id}")
        await _completion(handle, timeout)
        return handle.id, await handle.get()

    run_id, run = with_client(start, url=url, listen=wait)
    if run is None:
        _tell_started(run_id, as_json=as_json)
    else:
        _tell_ended(run, as_json=as_json)


async def _completion(handle: Handle[Any], timeout: timedelta | None) -> None:
    """Wait until the run is over; how it ended is told with all that is known of it."""
    try:
        await handle.wait_for_completion(timeout=timeout)
    except RunEndedError:
        return
    except asyncio.CancelledError:  # Ctrl-C ends the wait, and not the run.
        remark(f"the run goes on; `aiki runs watch {handle.id}` follows it")
        raise


def _order(name: str, version: str | None, apps: Sequence[str], value: Any, options: WorkflowOptions) -> _Start:
    """Find the workflow in the app, and check its input. Where that cannot be, a name and a version will do."""
    name, _, in_name = name.partition("@")
    version = version or in_name or None
    app = load_app(apps, settings_of()) if apps else _own_app(version)
    if app is not None and (version is None or apps or app.has(name)):
        workflow = app.workflow(name, version)
        payload = _arguments(workflow, value)
        return lambda client: client.enqueue_workflow(workflow, payload, options)

    assert version is not None
    known = version
    return lambda client: client.enqueue(name, value, version=known, options=options)


def _own_app(version: str | None) -> App | None:
    """Load the app of the settings, as long as it is needed or can be had."""
    settings = settings_of()
    try:
        if settings.app:
            return load_app((), settings)
    except ConfigurationError as error:
        if version is None:
            raise
        remark(f"the input is not checked: {error.message}")
    if version is None:
        raise ConfigurationError(
            "no app is named, so nobody knows the version of the workflow",
            hint="give --version 1.0.0, or --app shop.workflows (or [tool.aiki] app) to check the input as well",
        )
    return None


def _arguments(workflow: Workflow[..., Any], value: Any) -> Payload:
    """Check *value* against the workflow: an object by parameter, or the value of its only one."""
    names = workflow.signature.names
    if isinstance(value, dict) and (set(value) <= set(names) or len(names) != 1):
        return workflow.signature.dump((), value)
    if len(names) != 1:
        expected = f"an object with {', '.join(names) or 'nothing in it'}"
        raise InvalidArgumentsError(f"workflow {workflow.name!r}", [("arguments", expected, value)])
    return workflow.signature.dump((value,), {})


def _read(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="JSON") from error


def _tell_started(run_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": run_id})
    else:
        click.echo(run_id)


def _tell_ended(run: RunState, *, as_json: bool) -> None:
    if as_json:
        print_json(run_shape(run))
    elif run.result is not None:
        click.echo(run.result)
    else:
        failure = "" if run.failure is None else f": {run.failure.type}: {run.failure.message}"
        draw(status_text(run.status).append(failure))
    if run.status is not RunStatus.COMPLETED:
        raise click.exceptions.Exit(1)
