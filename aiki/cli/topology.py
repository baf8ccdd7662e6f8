"""`aiki topology apply|check|export`: what has to be in RabbitMQ."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from aiki.bootstrap import amqp_url
from aiki.cli.app import load_app
from aiki.cli.output import print_json, remark
from aiki.cli.session import settings_of
from aiki.config import Settings
from broker_topology import QueueNameError, Topology, command_queue, definitions_json, retry_queues, topology

__all__ = ["apply", "check", "export"]


def apply(partitions: int | None, apps: Sequence[str], retries: bool, url: str | None) -> None:
    """Declare what is missing; what is there already, and right, stays as it is."""
    from aiki.adapters.broker.rabbitmq import apply_topology

    settings = settings_of(amqp_url=url, partitions=partitions)
    more = _more(settings, apps, retries=retries)
    asyncio.run(apply_topology(amqp_url(settings), partitions=settings.partitions, more=more))
    layout = topology(settings.partitions) + more
    remark(f"there are {len(layout.exchanges)} exchanges and {len(layout.queues)} queues as they should be")


def check(partitions: int | None, apps: Sequence[str], retries: bool, as_json: bool, url: str | None) -> None:
    """Compare the broker with what should be there. Fails if something differs."""
    from aiki.adapters.broker.rabbitmq import check_topology

    settings = settings_of(amqp_url=url, partitions=partitions)
    more = _more(settings, apps, retries=retries)
    differences = asyncio.run(check_topology(amqp_url(settings), partitions=settings.partitions, more=more))
    if as_json:
        print_json({"differences": differences})
    else:
        for difference in differences:
            click.echo(difference)
        remark(f"{len(differences)} differences; `aiki topology apply` makes what is missing" if differences else "ok")
    if differences:
        raise click.exceptions.Exit(1)


def export(partitions: int | None, vhost: str, version: str, workers: Sequence[str], output: Path | None) -> None:
    """Write the definitions file, to standard output or to *output*."""
    settings = settings_of(partitions=partitions)
    try:
        text = definitions_json(settings.partitions, vhost=vhost, version=_version(version), workers=workers)
    except QueueNameError as error:
        raise click.BadParameter(str(error), param_hint="--worker") from error
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.FileError(str(output), hint=error.strerror) from error
        remark(f"wrote {output}")


def _more(settings: Settings, apps: Sequence[str], *, retries: bool) -> Topology:
    """Lay out what is not there from the start: the queues of the app, if there is one, and of retry delays."""
    queues = load_app(apps, settings).queues() if apps or settings.app else ()
    layout = sum((command_queue(queue) for queue in queues), Topology())
    return layout + retry_queues() if retries else layout


def _version(text: str) -> tuple[int, int]:
    try:
        major, minor = text.split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no version such as 3.10 or 4.1", param_hint="--rabbitmq") from None
