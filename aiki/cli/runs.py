"""`aiki runs list|show|watch`: looking at runs."""

from datetime import timedelta

import click

from aiki.cli.drawing import draw_run, draw_runs
from aiki.cli.output import draw, now, print_json, print_json_line, remark, width
from aiki.cli.session import with_client
from aiki.cli.shapes import entry_shape, run_shape, timeline_shape
from aiki.cli.timeline import build_timeline
from aiki.cli.wording import wait_line
from aiki.engine.journal import JournalEntry
from aiki.engine.queries import RunFilter, RunPage
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import ClientError, RunNotFoundError
from aiki.sdk.client import Client

__all__ = ["list_runs", "show", "watch"]


def list_runs(
    workflow: str | None,
    statuses: tuple[str, ...],
    version: str | None,
    tag: str | None,
    since: timedelta | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
    url: str | None,
) -> None:
    """List runs, newest first; those of *workflow* only, if it is given."""
    where = RunFilter(
        workflow=workflow,
        version=version,
        statuses=tuple(RunStatus(status) for status in statuses),
        tag=tag,
        created_after=None if since is None else now() - since,
    )

    async def find(client: Client) -> RunPage:
        return await client.find(where, limit=limit, cursor=cursor)

    page = with_client(find, url=url)
    if as_json:
        print_json({"runs": [run_shape(run) for run in page.runs], "cursor": page.cursor})
        return
    if not page.runs:
        remark("no runs")
        return
    draw(draw_runs(page.runs, now=now()))
    if page.cursor is not None:
        remark(f"more: --cursor {page.cursor}")


def show(run_id: str | None, as_json: bool, url: str | None) -> None:
    """Draw the timeline of a run, or of the newest run: each task, its attempts, waits, durations and errors."""

    async def read(client: Client) -> tuple[RunState, tuple[JournalEntry, ...]]:
        handle = client.handle(run_id or await _newest(client))
        return await handle.get(), await handle.journal()

    run, journal = with_client(read, url=url)
    moment = now()
    timeline = build_timeline(run, journal, now=moment)
    if as_json:
        print_json(
            {
                "run": run_shape(run),
                "steps": timeline_shape(timeline),
                "journal": [entry_shape(entry) for entry in journal],
            }
        )
    else:
        draw(draw_run(run, timeline, now=moment, width=width()))


def watch(run_id: str | None, as_json: bool, url: str | None) -> None:
    """Follow a run, or the newest run, until it is over. Fails if the run does."""

    async def follow(client: Client) -> RunState:
        handle = client.handle(run_id or await _newest(client))
        last: RunState | None = None
        async for run in handle.watch():
            _tell(run, last, as_json=as_json)
            last = run
        if last is None:
            raise RunNotFoundError(handle.id)
        return last

    run = with_client(follow, url=url, listen=True)
    raise click.exceptions.Exit(0 if run.status is RunStatus.COMPLETED else 1)


def _tell(run: RunState, before: RunState | None, *, as_json: bool) -> None:
    if as_json:
        print_json_line(run_shape(run))
        return
    moment = now()
    line = f"{moment.astimezone():%H:%M:%S}  {run.status.value:<15}"
    if run.waits and run.status.is_suspended:
        line += "  " + "; ".join(wait_line(wait, now=moment) for wait in run.waits)
    if run.note is not None and (before is None or before.note != run.note):
        line += f"  says {run.note}"
    if run.result is not None:
        line += f"  {run.result}"
    if run.failure is not None and run.status.is_final:
        line += f"  {run.failure.type}: {run.failure.message}"
    click.echo(line)


async def _newest(client: Client) -> str:
    page = await client.find(limit=1)
    if not page.runs:
        raise ClientError("there are no runs", hint="start one with `aiki enqueue`")
    return page.runs[0].run_id
