"""Servers to develop with: `python -m aiki.testing.servers up|down|status|install`.

They live in `.aiki/servers/` of the current folder and outlive the command; their data outlives them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from aiki.errors import AikiError
from aiki.testing.servers.containers import docker_answers
from aiki.testing.servers.mongo import MongoNode
from aiki.testing.servers.node import NOBODY, ServerNode
from aiki.testing.servers.programs import find_mongod, find_rabbitmq
from aiki.testing.servers.rabbit import RabbitNode

__all__ = ["main"]

# A worker keeps the command of a run unacknowledged while it executes; RabbitMQ's default of half an hour
# would take long runs away from it.
DAY_MILLIS = 24 * 60 * 60 * 1000
SETTINGS = {"consumer_timeout": str(30 * DAY_MILLIS)}


def rabbit(folder: Path) -> RabbitNode:
    """The RabbitMQ to develop with, on the usual ports when they are free."""
    return RabbitNode(
        folder / "rabbit",
        owner=NOBODY,
        preferred_ports={"amqp": 5672, "management": 15672},
        management=True,
        settings=SETTINGS,
    )


def mongo(folder: Path) -> MongoNode:
    """The MongoDB to develop with, on the usual port when it is free."""
    return MongoNode(folder / "mongo", owner=NOBODY, preferred_ports={"mongodb": 27017})


@click.group()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".aiki/servers"),
    show_default=True,
    help="Where the servers keep everything.",
)
@click.pass_context
def main(context: click.Context, folder: Path) -> None:
    """Start and stop a RabbitMQ and a MongoDB of your own."""
    context.obj = folder


@main.command()
@click.pass_obj
def up(folder: Path) -> None:
    """Start what does not run, and print the variables to use it."""
    broker, store = rabbit(folder), mongo(folder)
    try:
        broker.start(wait=False)
        store.start()
        broker.wait_until_ready()
    except AikiError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"RabbitMQ runs, its management UI is {broker.management_url} (guest, guest); MongoDB runs.", err=True)
    click.echo("In your shell:", err=True)
    click.echo(f"export AIKI_AMQP_URL={broker.url}")
    click.echo(f"export AIKI_MANAGEMENT_URL={broker.management_url}")
    click.echo(f"export AIKI_MONGODB_URL='{store.url}'")


@main.command()
def install() -> None:
    """Find the programs that tests need, and install or fetch those that are missing."""
    try:
        for title, variable, find in (
            ("RabbitMQ", "AIKI_AMQP_URL", find_rabbitmq),
            ("MongoDB", "AIKI_MONGODB_URL", find_mongod),
        ):
            if variable in os.environ:
                click.echo(f"{title}: {variable} is set")
            elif docker_answers():
                click.echo(f"{title}: in a container")
            else:
                click.echo(f"{title}: {find()}")
    except AikiError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.pass_obj
def down(folder: Path) -> None:
    """Stop the servers. Their data stays for the next `up`."""
    for node in nodes(folder):
        ran = node.is_running
        node.stop()
        click.echo(f"{node.title} is stopped" if ran else f"{node.title} was not running", err=True)


@main.command()
@click.pass_obj
@click.pass_context
def status(context: click.Context, folder: Path) -> None:
    """Say what runs; the exit code is 1 unless all does."""
    running = True
    for node in nodes(folder):
        running = running and node.is_running
        click.echo(f"{node.title}: {f'runs, process {node.pid}' if node.is_running else 'does not run'}")
    context.exit(0 if running else 1)


def nodes(folder: Path) -> Iterator[ServerNode]:
    """Both servers, running or not."""
    yield rabbit(folder)
    yield mongo(folder)


if __name__ == "__main__":
    main(prog_name="python -m aiki.testing.servers")
