"""`aiki topology apply|check|export`: what has to be in RabbitMQ."""

from pathlib import Path
from typing import Any

import click

from aiki.cli.parameters import as_json, url_option

__all__ = ["apply", "check", "export"]

_partitions = click.option("--partitions", type=click.IntRange(1, 256), help="Otherwise AIKI_PARTITIONS.")
_app = click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="MODULE[:NAME]",
    help="With the queues of these workflows and tasks; repeatable. Otherwise AIKI_APP.",
)
_retries = click.option("--retries", is_flag=True, help="With the queues of all retry delays.")


@click.command()
@_partitions
@_app
@_retries
@url_option
def apply(**given: Any) -> None:
    """Declare what is missing. What is there already, and right, stays as it is.

    Queues of workflows, tasks and retry delays are otherwise declared when they are first needed.
    """
    from aiki.cli import topology

    topology.apply(**given)


@click.command()
@_partitions
@_app
@_retries
@as_json
@url_option
def check(**given: Any) -> None:
    """Compare the broker with what should be there. Fails if something differs."""
    from aiki.cli import topology

    topology.check(**given)


@click.command()
@_partitions
@click.option("--vhost", default="/", show_default=True, help="The virtual host.")
@click.option("--rabbitmq", "version", default="3.10", show_default=True, help="The version of RabbitMQ it is for.")
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="NAME",
    help="With a user whose workers serve this workflow or task queue alone; repeatable.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def export(**given: Any) -> None:
    """Write the definitions file: exchanges, queues, policies, and a user with least permissions for each role."""
    from aiki.cli import topology

    topology.export(**given)
