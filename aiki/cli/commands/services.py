"""`aiki orchestrator`, `aiki worker`, `aiki rebuild`: the processes of an installation."""

from typing import Any

import click

from aiki.cli.parameters import app_option, as_json, concurrency_option

__all__ = ["orchestrator", "rebuild", "worker"]


@click.command()
@click.option("--health", metavar="[HOST:]PORT", help="Answer /live and /ready there.")
def orchestrator(**given: Any) -> None:
    """Run an orchestrator: it decides what follows from events, and keeps runs in MongoDB.

    Any number may run; the partitions are shared out among them.
    """
    from aiki.cli import services

    services.orchestrator(**given)


@click.command()
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME", help="What to serve; repeatable. Otherwise everything."
)
@app_option
@concurrency_option
def worker(**given: Any) -> None:
    """Run a worker: it executes workflows and their tasks.

    NAME is a workflow (all its versions that the app has), one version of it as workflow@1.0.0, or a task queue.
    """
    from aiki.cli import services

    services.worker(**given)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def rebuild(**given: Any) -> None:
    """Send again what the store says is due, after RabbitMQ lost its queues.

    Runs that a worker holds right now go on elsewhere, with what is recorded. It may be done again at any time.
    """
    from aiki.cli import services

    services.rebuild(**given)
