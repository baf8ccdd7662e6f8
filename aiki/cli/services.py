"""`aiki orchestrator`, `aiki worker`, `aiki rebuild`: the processes of an installation."""

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import asdict

import click

from aiki.bootstrap import rebuild_queues, running_orchestrator, running_worker
from aiki.cli.app import App, load_app
from aiki.cli.output import as_json, print_json, remark
from aiki.cli.session import settings_of
from aiki.cli.stopping import stop_on_signals
from aiki.cli.wording import duration
from aiki.config import Settings

__all__ = ["orchestrator", "rebuild", "settle_down", "worker"]


@click.command()
@click.option("--health", metavar="[HOST:]PORT", help="Answer /live and /ready there.")
def orchestrator(health: str | None) -> None:
    """Run an orchestrator: it decides what follows from events, and keeps runs in MongoDB.

    Any number may run; the partitions are shared out among them.
    """
    settings = settings_of(is_service=True, health=health)
    raise click.exceptions.Exit(asyncio.run(_orchestrate(settings)))


async def _orchestrate(settings: Settings) -> int:
    grace = settings.shutdown_grace
    async with running_orchestrator(settings) as service:
        settle_down()
        with stop_on_signals(lambda: f"finishing what is in hand, {duration(grace)} at most") as stop:
            await stop.serve(service.wait(), stop=lambda: service.stop(grace.total_seconds()))
    return stop.exit_code


@click.command()
@click.option(
    "--queue", "queues", multiple=True, metavar="NAME", help="What to serve; repeatable. Otherwise everything."
)
@click.option(
    "--app", "apps", multiple=True, metavar="MODULE[:NAME]", help="Where workflows and tasks are; repeatable."
)
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="How many runs to hold at the same time.")
def worker(queues: Sequence[str], apps: Sequence[str], concurrency: int | None) -> None:
    """Run a worker: it executes workflows and their tasks.

    NAME is a workflow (all its versions that the app has), one version of it as workflow@1.0.0, or a task queue.
    """
    settings = settings_of(is_service=True, concurrency=concurrency)
    app = load_app(apps, settings).select(queues)
    raise click.exceptions.Exit(asyncio.run(_work(settings, app)))


async def _work(settings: Settings, app: App) -> int:
    grace = duration(settings.shutdown_grace)
    async with running_worker(settings, app.workflows, app.tasks) as service:
        settle_down()
        with stop_on_signals(lambda: f"handing back {len(service.held_runs)} runs, {grace} at most") as stop:
            await stop.serve(service.run_until_stopped(), stop=service.stop)
    return stop.exit_code


# What a run was made of is taken apart by hand and goes by reference counting (docs/decisions/0101), so the
# collector finds next to nothing, and every look at what is still in use is in vain.
_COLLECT_EVERY = (10_000, 10, 10)


def settle_down() -> None:
    """Tell the garbage collector that what is loaded by now stays for the life of the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_EVERY)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def rebuild(yes: bool, as_json: bool) -> None:
    """Send again what the store says is due, after RabbitMQ lost its queues.

    Runs that a worker holds right now go on elsewhere, with what is recorded. It may be done again at any time.
    """
    if not yes:
        click.confirm("Dispatch all unfinished runs again?", abort=True, err=True)
    report = asyncio.run(rebuild_queues(settings_of()))
    if as_json:
        print_json(asdict(report))
    else:
        remark(
            f"{report.unfinished} unfinished runs: {report.dispatched} dispatched again, "
            f"{report.timers} overdue wake-ups, {report.outcomes} outcomes of child runs "
            f"and {report.letters} dead letters or redrives sent"
        )
