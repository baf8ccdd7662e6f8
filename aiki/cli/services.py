"""`aiki orchestrator`, `aiki worker`, `aiki rebuild`: the processes of an installation."""

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import asdict

import click

from aiki.bootstrap import rebuild_queues, running_orchestrator, running_worker
from aiki.cli.app import App, load_app
from aiki.cli.loops import runner_of
from aiki.cli.output import print_json, remark
from aiki.cli.session import settings_of
from aiki.cli.stopping import stop_on_signals
from aiki.cli.wording import duration
from aiki.config import Settings

__all__ = ["orchestrator", "rebuild", "settle_down", "worker"]


def orchestrator(health: str | None) -> None:
    """Run an orchestrator until it is told to stop."""
    settings = settings_of(is_service=True, health=health)
    with runner_of(settings) as runner:
        raise click.exceptions.Exit(runner.run(_orchestrate(settings)))


async def _orchestrate(settings: Settings) -> int:
    grace = settings.shutdown_grace
    async with running_orchestrator(settings) as service:
        settle_down()
        with stop_on_signals(lambda: f"finishing what is in hand, {duration(grace)} at most") as stop:
            await stop.serve(service.wait(), stop=lambda: service.stop(grace.total_seconds()))
    return stop.exit_code


def worker(queues: Sequence[str], apps: Sequence[str], concurrency: int | None) -> None:
    """Run a worker until it is told to stop."""
    settings = settings_of(is_service=True, concurrency=concurrency)
    app = load_app(apps, settings).select(queues)
    with runner_of(settings) as runner:
        raise click.exceptions.Exit(runner.run(_work(settings, app)))


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


def rebuild(yes: bool, as_json: bool) -> None:
    """Send again what the store says is due."""
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
