"""`aiki bench`: how fast the engine is on these servers, with a workflow and a queue of its own."""

import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from aiki.bootstrap import amqp_url, connect_client, embedded, running_worker
from aiki.cli.loops import runner_of
from aiki.cli.measuring import Measured, in_flight, one_at_a_time, percentile
from aiki.cli.output import draw, print_json, remark
from aiki.cli.session import settings_of
from aiki.config import Settings
from aiki.errors import AikiError, BrokerUnavailableError, CompletionTimeoutError
from aiki.sdk.client import Client
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow

__all__ = ["measure"]

STEPS = 3
RUN_SECONDS = 120.0

# Long enough to look into a run that was slow.
KEPT = timedelta(minutes=10)


@task
async def add_one(number: int) -> int:
    """Do next to nothing, so that what is measured is the engine."""
    return number + 1


async def _three_steps(run: Run, start: int) -> int:
    number = start
    for _ in range(STEPS):
        number = await add_one.run(run, number)
    return number


def measure(runs: int, alone: int, at_once: int, wait: timedelta, is_embedded: bool, as_json: bool) -> None:
    """Measure runs of three durable steps, and draw how many there were in a second and how long one took."""
    # A version of its own is a queue of its own: no worker of the application serves it.
    measured = workflow(name="aiki-bench", version=uuid4().hex[:12])(_three_steps)
    settings = settings_of()
    engine = _inside(measured, at_once) if is_embedded else _on_servers(settings, measured)
    try:
        with runner_of(settings) as runner:
            figures = runner.run(_measure(engine, measured, wait=wait, runs=runs, alone=alone, at_once=at_once))
    except BrokerUnavailableError as error:
        if settings.amqp_url is not None:
            raise
        # Nobody said which broker. Whoever has none, but `aiki dev`, needs none here either.
        hint = "AIKI_AMQP_URL is not set; `aiki bench --embedded` measures the engine without servers"
        raise BrokerUnavailableError(error.message, hint=hint) from error
    if as_json:
        print_json(figures)
    else:
        draw(_table(figures))


async def _measure(
    engine: AbstractAsyncContextManager[Client],
    measured: Workflow[[int], int],
    *,
    wait: timedelta,
    runs: int,
    alone: int,
    at_once: int,
) -> Mapping[str, float]:
    async with engine as client:
        await _first(client, measured, timeout=wait.total_seconds())

        async def one(number: int) -> None:
            await _one(client, measured, number, timeout=RUN_SECONDS)

        one_by_one = await one_at_a_time(one, times=alone)
        cpu = time.process_time()
        loaded = await in_flight(one, times=runs, at_once=at_once)
        cpu = time.process_time() - cpu
    return _figures(one_by_one, loaded, cpu=cpu, at_once=at_once)


def _figures(alone: Measured, loaded: Measured, *, cpu: float, at_once: int) -> Mapping[str, float]:
    return {
        "runs": len(loaded.taken),
        "at_once": at_once,
        "runs_per_second": round(loaded.per_second, 1),
        "steps_per_second": round(loaded.per_second * STEPS, 1),
        "in_flight_p50_ms": round(percentile(loaded.taken, 0.5) * 1000, 2),
        "in_flight_p99_ms": round(percentile(loaded.taken, 0.99) * 1000, 2),
        "alone_p50_ms": round(percentile(alone.taken, 0.5) * 1000, 2),
        "alone_p99_ms": round(percentile(alone.taken, 0.99) * 1000, 2),
        "cpu_seconds_here_per_1000_runs": round(cpu / len(loaded.taken) * 1000, 3),
    }


def _table(figures: Mapping[str, float]) -> str:
    return "\n".join(
        (
            f"{figures['runs']:,} runs of {STEPS} durable steps, {figures['at_once']} in flight",
            f"  {figures['runs_per_second']:>10,.1f}  runs a second ({figures['steps_per_second']:,.1f} steps)",
            f"  {figures['in_flight_p50_ms']:>10,.1f}  ms from enqueue to result, half of them"
            f" (99 %: {figures['in_flight_p99_ms']:,.1f})",
            f"  {figures['cpu_seconds_here_per_1000_runs']:>10,.2f}  CPU seconds for 1,000 runs, in this process",
            "one run at a time",
            f"  {figures['alone_p50_ms']:>10,.1f}  ms from enqueue to result, half of them"
            f" (99 %: {figures['alone_p99_ms']:,.1f})",
        )
    )


@asynccontextmanager
async def _inside(measured: Workflow[[int], int], at_once: int) -> AsyncIterator[Client]:
    from aiki.worker.service import Worker

    with tempfile.TemporaryDirectory(prefix="aiki-bench-") as folder:
        async with (
            embedded(Path(folder) / "bench.db") as client,
            Worker(client, workflows=[measured], max_concurrent_runs=at_once),
        ):
            yield client


@asynccontextmanager
async def _on_servers(settings: Settings, measured: Workflow[[int], int]) -> AsyncIterator[Client]:
    from aiki.adapters.broker.rabbitmq import delete_queue

    url = amqp_url(settings)
    try:
        async with running_worker(settings, [measured]), connect_client(settings) as client:
            yield client
    finally:
        await delete_queue(url, measured.queue)
    remark(f"the queue {measured.queue} is deleted; the runs stay in the store for {KEPT.seconds // 60} minutes")


async def _first(client: Client, measured: Workflow[[int], int], *, timeout: float) -> None:
    """Run it once: queues are declared, and somebody is there.

    Raises:
        AikiError: nothing came of it.
    """
    try:
        await _one(client, measured, 0, timeout=timeout)
    except CompletionTimeoutError as error:
        raise AikiError(
            f"the first run was not over after {timeout:g} s",
            hint="is an orchestrator running? `aiki doctor` looks",
        ) from error


async def _one(client: Client, measured: Workflow[[int], int], number: int, *, timeout: float) -> None:
    handle = await measured.with_options(retention=KEPT).enqueue(client, number)
    await handle.wait_for_completion(timeout=timeout)
