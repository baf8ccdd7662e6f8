"""`aiki doctor`: is everything there, does it fit together, does anything wait in vain?

Each check is a function that finds something; none stops the others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from aiki.bootstrap import broker_url, connect_client, is_embedded
from aiki.cli.app import load_app
from aiki.cli.management import consumer_timeouts
from aiki.cli.output import draw, print_json
from aiki.cli.session import settings_of
from aiki.cli.wording import duration
from aiki.config import Settings, unknown_variables
from aiki.engine.queries import RunFilter, Stats
from aiki.engine.status import RunStatus
from aiki.errors import AikiError, ConfigurationError
from aiki.observability import masked
from aiki.sdk.client import Client

__all__ = ["Finding", "Verdict", "examine"]

# Queued runs that are looked at to find queues that nobody consumes.
_QUEUED_MAX = 500

_ANSWER_SECONDS = 5.0

# A worker that has held a command for this part of the broker's patience has time to leave it, also at the third try.
_SEVERAL_TRIES = 3


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


_MARKS = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARNING: ("!", "yellow"),
    Verdict.PROBLEM: ("✗", "red"),
    Verdict.UNKNOWN: ("?", "dim"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    check: str
    verdict: Verdict
    detail: str
    hint: str | None = None


Check = Callable[[Settings], Awaitable[list[Finding]]]


def examine(as_json: bool, url: str | None) -> None:
    """Draw what every check finds. Fails if there is a problem."""
    settings = settings_of(amqp_url=url)
    findings = asyncio.run(_examine(settings))
    if as_json:
        print_json({"findings": [{**asdict(finding), "verdict": finding.verdict.value} for finding in findings]})
    else:
        _draw(findings)
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        raise click.exceptions.Exit(1)


def _draw(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.verdict]
        text = Text(finding.detail)
        if finding.hint is not None:
            text.append(f"\n{finding.hint}", style="cyan")
        table.add_row(Text(mark, style=style), Text(finding.check, style="bold"), text)
    draw(table)


async def _examine(settings: Settings) -> list[Finding]:
    url = broker_url(settings)
    checks: list[Check] = [_app, _engine]
    if not is_embedded(url):
        checks = [_broker, _store, _consumer_timeout, _app, _engine]
    findings = [Finding("settings", Verdict.OK, f"broker {masked(url)}, store {masked(settings.mongodb_url)}")]
    if is_embedded(url):
        findings = [Finding("settings", Verdict.OK, f"an embedded engine: {url}")]
    findings += [
        Finding("settings", Verdict.WARNING, f"{name} is no setting", f"did you mean {meant}?")
        for name, meant in unknown_variables().items()
        if meant is not None
    ]
    for check in checks:
        name = check.__name__.strip("_").replace("_", " ")
        try:
            findings += await check(settings)
        except AikiError as error:
            findings.append(Finding(name, Verdict.PROBLEM, error.message, error.hint))
    return findings


async def _broker(settings: Settings) -> list[Finding]:
    from aiki.adapters.broker.rabbitmq import check_topology, inspect_broker

    url = broker_url(settings)
    report = await inspect_broker(url, ())
    version = ".".join(str(part) for part in report.version)
    findings = [Finding("broker", Verdict.OK, f"RabbitMQ {version}")]
    if report.version < (3, 10):
        findings = [Finding("broker", Verdict.PROBLEM, f"RabbitMQ {version} is too old", "3.10 or newer is needed")]
    differences = await check_topology(url, partitions=settings.partitions)
    if not differences:
        findings.append(Finding("topology", Verdict.OK, "all exchanges and queues are as they should be"))
    else:
        hint = "`aiki topology apply` makes what is missing"
        findings.append(Finding("topology", Verdict.PROBLEM, "\n".join(differences), hint))
    return findings


async def _store(settings: Settings) -> list[Finding]:
    from aiki.adapters.store.mongodb.inspection import inspect_store

    report = await inspect_store(settings.mongodb_url, database=settings.mongodb_database)
    findings = [Finding("store", Verdict.OK, f"MongoDB {report.version}, {report.setup}")]
    if report.setup == "standalone":
        hint = "a replica set of three keeps runs through the loss of one server"
        findings = [Finding("store", Verdict.WARNING, f"MongoDB {report.version} is a standalone server", hint)]
    if report.lacking:
        lacking = ", ".join(report.lacking)
        hint = "give it the role readWrite on the database"
        findings.append(Finding("store", Verdict.PROBLEM, f"this user may not: {lacking}", hint))
    findings.append(_partitions(settings, report.partitions))
    return findings


def _partitions(settings: Settings, stored: int | None) -> Finding:
    if stored is None:
        return Finding("partitions", Verdict.OK, f"{settings.partitions}, not used yet")
    if stored == settings.partitions:
        return Finding("partitions", Verdict.OK, f"{stored}, here and in the store")
    return Finding(
        "partitions",
        Verdict.PROBLEM,
        f"{settings.partitions} here, {stored} in the store",
        f"set AIKI_PARTITIONS={stored}; runs would be sent where nobody expects them",
    )


async def _consumer_timeout(settings: Settings) -> list[Finding]:
    """See whether the broker takes commands away from those who hold them for long."""
    name = "consumer timeout"
    try:
        timeouts = await asyncio.to_thread(consumer_timeouts, settings, broker_url(settings))
    except OSError as error:
        hint = "`rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'` tells; 30 minutes or more is right"
        detail = f"could not be checked: the management API cannot be read ({error})"
        return [Finding(name, Verdict.UNKNOWN, detail, hint)]
    enough = _SEVERAL_TRIES * settings.lease_after
    short = {queue: span for queue, span in timeouts.items() if span < enough}
    if short:
        queue, span = min(short.items(), key=lambda item: item[1])
        hint = (
            f"a policy sets it; {duration(enough)} or more is right, three times AIKI_LEASE_AFTER, "
            "or runs that take longer are started twice"
        )
        return [Finding(name, Verdict.PROBLEM, f"{duration(span)} for {queue}, {len(short)} queues in all", hint)]
    detail = "no policy makes it shorter than the broker's own (30 minutes, unless its configuration says otherwise)"
    return [Finding(name, Verdict.OK, detail)]


async def _app(settings: Settings) -> list[Finding]:
    if not settings.app:
        return [Finding("app", Verdict.OK, "none is named here")]
    try:
        app = load_app((), settings)
    except ConfigurationError as error:
        return [Finding("app", Verdict.PROBLEM, error.message, error.hint)]
    return [Finding("app", Verdict.OK, app.names())]


async def _engine(settings: Settings) -> list[Finding]:
    """Ask an orchestrator who is there, and what waits. That it answers shows what a client may do, too."""
    async with connect_client(settings, name="doctor") as client:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                stats = await client.stats()
        except TimeoutError:
            stats = None
        if stats is None:
            return [
                Finding("orchestrators", Verdict.PROBLEM, "none answers", "start one with `aiki orchestrator`"),
            ]
        findings = _who_is_there(stats)
        findings += await _queues(settings, client, stats)
    if stats.dead_letters:
        hint = "look with `aiki dead-letters list`"
        findings.append(Finding("dead letters", Verdict.WARNING, f"{stats.dead_letters} wait for somebody", hint))
    else:
        findings.append(Finding("dead letters", Verdict.OK, "none"))
    return findings


def _who_is_there(stats: Stats) -> list[Finding]:
    names = ", ".join(str(one["id"]) for one in stats.orchestrators)
    findings = [Finding("orchestrators", Verdict.OK, names or "one answers")]
    if stats.workers:
        workers = ", ".join(f"{one['id']} ({_serves(one)})" for one in stats.workers)
        findings.append(Finding("workers", Verdict.OK, workers))
    else:
        findings.append(Finding("workers", Verdict.WARNING, "none", "start one with `aiki worker`"))
    return findings


def _serves(worker: Any) -> str:
    return ", ".join(worker.get("queues", ())) or "nothing"


async def _queues(settings: Settings, client: Client, stats: Stats) -> list[Finding]:
    """Find queues in which runs wait and that nobody consumes."""
    waiting = await client.find(RunFilter(statuses=(RunStatus.QUEUED,)), limit=_QUEUED_MAX)
    queued: dict[str, int] = {}
    for run in waiting.runs:
        queued[run.queue] = queued.get(run.queue, 0) + 1
    served = {queue for worker in stats.workers for queue in worker.get("queues", ())}
    url = broker_url(settings)
    if queued and not is_embedded(url):
        from aiki.adapters.broker.rabbitmq import inspect_broker

        report = await inspect_broker(url, sorted(queued))
        served = {queue.name for queue in report.queues if queue.consumers}
    findings = [
        Finding(
            "queues",
            Verdict.PROBLEM,
            f"{count} runs wait in {queue}, and nobody consumes it",
            f"start a worker that has it: `aiki worker --queue {queue}`",
        )
        for queue, count in sorted(queued.items())
        if queue not in served
    ]
    return findings or [Finding("queues", Verdict.OK, "every queue with waiting runs has a consumer")]
