"""`aiki dev`: everything in one process, without servers."""

from collections.abc import Sequence

import click

from aiki.bootstrap import Dev, running_dev
from aiki.cli.app import App, load_app
from aiki.cli.loops import runner_of
from aiki.cli.output import remark
from aiki.cli.services import settle_down
from aiki.cli.session import settings_of
from aiki.cli.stopping import stop_on_signals
from aiki.cli.wording import duration
from aiki.config import Settings

__all__ = ["serve"]


def serve(apps: Sequence[str], data: str | None, concurrency: int | None) -> None:
    """Run everything until it is told to stop."""
    settings = settings_of(is_service=True, data=data, concurrency=concurrency)
    app = load_app(apps, settings)
    with runner_of(settings) as runner:
        raise click.exceptions.Exit(runner.run(_serve(settings, app)))


async def _serve(settings: Settings, app: App) -> int:
    grace = duration(settings.shutdown_grace)
    async with running_dev(settings, app.workflows, app.tasks) as engine:
        settle_down()
        _greet(engine, app)
        with stop_on_signals(lambda: f"handing back {len(engine.worker.held_runs)} runs, {grace} at most") as stop:
            await stop.serve(engine.worker.run_until_stopped(), engine.orchestrator.wait(), stop=engine.stop)
    return stop.exit_code


def _greet(engine: Dev, app: App) -> None:
    remark(f"aiki dev: ready, with {app.names()}")
    remark(f"runs are kept in {engine.database}; in another terminal:")
    if app.workflows:
        workflow = app.workflows[0]
        arguments = ", ".join(f'"{name}": …' for name in workflow.signature.names)
        remark(f"  aiki enqueue {workflow.name} '{{{arguments}}}' --wait")
    remark("  aiki runs show")
