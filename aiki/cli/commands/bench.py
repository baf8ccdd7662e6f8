"""`aiki bench`: how fast the engine is on these servers, with a workflow and a queue of its own."""

from typing import Any

import click

from aiki.cli.parameters import DURATION, as_json

__all__ = ["bench"]


@click.command()
@click.option(
    "--runs", type=click.IntRange(10, 1_000_000), default=2000, show_default=True, help="How many, for speed."
)
@click.option("--alone", type=click.IntRange(10, 100_000), default=200, show_default=True, help="How many, one by one.")
@click.option("--at-once", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many in flight.")
@click.option(
    "--wait",
    type=DURATION,
    default="15s",
    show_default=True,
    help="How long the first run may take, before all others.",
)
@click.option("--embedded", "is_embedded", is_flag=True, help="Measure the engine inside this process, in a new file.")
@as_json
def bench(**given: Any) -> None:
    """Measure runs of three durable steps: how many a second, and how long one takes.

    The client and the worker are in this process, on the broker of AIKI_AMQP_URL; an orchestrator has to run.
    The workflow has a queue of its own, which is deleted at the end; its runs expire after ten minutes.
    """
    from aiki.cli import bench

    bench.measure(**given)
