"""What the processes of a simulation do: orchestrators, workers, clients. All of it is the real code."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import (
    AikiError,
    CompletionTimeoutError,
    EnqueueTimeoutError,
    RunCancelledError,
    RunDeadLetteredError,
    RunEndedError,
    RunFailedError,
    RunNotFoundError,
)
from aiki.orchestrator.rebuild import rebuild
from aiki.orchestrator.service import Orchestrator
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle
from aiki.sdk.workflow import Workflow
from aiki.testing.simulation.invariants import Watch
from aiki.testing.simulation.workload import TASKS, WORKFLOWS, Job
from aiki.testing.simulation.world import Member, World
from aiki.worker.service import Worker

__all__ = ["Driver", "elsewhere", "orchestrator", "rebuilder", "worker"]

# After this a run that is kept for a second has expired, where a sweep is made every three.
FORGOTTEN_SECONDS = 8.0

# Nobody is frozen, cut off or without servers for longer.
FROZEN_SECONDS = 150.0


async def orchestrator(world: World, member: Member) -> None:
    """Move runs forward."""
    await member.broker.start()
    service = Orchestrator(
        member.broker,
        member.store,
        member.clock,
        replace(world.circumstances.orchestrator, name=str(member.process), sweep_every=world.sweep_every),
    )
    world.stats.append(service.stats)
    member.parts["orchestrator"] = service
    member.broker.on_settled = lambda bodies: world.on_settled(bodies)  # noqa: PLW0108 - whoever watches comes later
    try:
        await service.run()
    finally:
        await member.broker.close()


async def worker(world: World, member: Member) -> None:
    """Execute runs."""
    await _work(world, member, workflows=WORKFLOWS)


async def elsewhere(world: World, member: Member) -> None:
    """Execute the tasks that workflows send elsewhere, and runs as well."""
    await _work(world, member, workflows=WORKFLOWS, tasks=TASKS)


async def _work(world: World, member: Member, **definitions: Any) -> None:
    member.broker.on_put = lambda value: world.on_put(value)  # noqa: PLW0108 - whoever watches comes later
    client = Client(member.broker, clock=member.clock, name=member.name, timeout=5.0, listen=False)
    async with client:
        settings = world.circumstances.worker
        service = Worker(
            client,
            **definitions,
            name=member.name,
            max_concurrent_runs=settings.max_concurrent_runs,
            shutdown_grace=settings.shutdown_grace,
            settings=settings,
        )
        member.parts["worker"] = service
        async with service:
            await service.run_until_stopped()


async def rebuilder(world: World, member: Member) -> None:
    """Say after the loss of a broker what every queue should hold."""
    await member.broker.start()
    while True:
        try:
            await rebuild(member.store, member.broker, member.clock, timeout=5.0)
            break
        except AikiError:
            await asyncio.sleep(0.5)
    await member.broker.close()
    member.parts["done"] = True
    await asyncio.Future()


class Driver:
    """The clients' side: asks for every job until it is accepted, says what has to be said, hears the outcome."""

    def __init__(self, jobs: list[Job], watch: Watch) -> None:
        self.jobs = jobs
        self._watch = watch
        self._complain = watch.complain

    async def role(self, world: World, member: Member) -> None:
        """Be the process of a client; a new one goes on where the old one was."""
        member.broker.on_put = lambda value: world.on_put(value)  # noqa: PLW0108 - as with a worker
        async with Client(member.broker, clock=member.clock, name=member.name, timeout=5.0) as client:
            member.parts["client"] = client
            await asyncio.gather(*(self._drive(client, job, world) for job in self.jobs))
            await asyncio.Future()

    async def _drive(self, client: Client, job: Job, world: World) -> None:
        await asyncio.sleep(world.random.uniform(0, world.circumstances.profile.arrivals))
        if job.is_over and job.run_id in self._watch.late:
            return  # Its run was forgotten; what has that name now was made by a write that came too late.
        while True:
            handle = await self._handle(client, job)
            while job.said < len(job.says):
                await self._say(handle, job, world)
            await self._hear(client, handle, job)
            if not job.again:
                return
            await asyncio.sleep(FORGOTTEN_SECONDS)
            job.ask_again()

    async def _say(self, handle: Handle[Any], job: Job, world: World) -> None:
        """Say the next word; if nobody knows whether it arrived, once more."""
        job.is_unsure |= job.is_saying
        job.is_saying = True
        await asyncio.sleep(world.random.uniform(0, job.pause))
        try:
            await _SAYINGS[job.says[job.said][0]](handle, job.says[job.said][1])
        except RunNotFoundError:
            if job.is_forgotten_soon and self._watch.has_ended(handle.id):
                job.said = len(job.says)  # It went on without, and nobody is there to hear it.
            await asyncio.sleep(0.2)
        except AikiError:
            await asyncio.sleep(0.2)
        else:
            job.said += 1
            job.is_saying = False

    async def _handle(self, client: Client, job: Job) -> Handle[Any]:
        if job.run_id is not None:
            return client.handle(job.run_id, job.workflow)
        wanted = _with_options(job.workflow, tuple(job.options.items()))
        while True:
            try:
                handle: Handle[Any] = await wanted.enqueue(client, *job.arguments)
            except EnqueueTimeoutError:
                continue  # What may have come about all the same is found in the store, and has to end as well.
            except AikiError as error:
                self._complain(f"job {job.number} was refused: {error!r}")
                await asyncio.Future()
            job.run_id = handle.id
            job.is_stored = "idempotency_key" in job.options or "confirm" in job.options
            return handle

    async def _hear(self, client: Client, handle: Handle[Any], job: Job) -> None:
        """Wait for the outcome, and see whether it is right."""
        has_ended = False
        while not has_ended:
            has_ended = await self._has_ended(client, handle, job)
            await asyncio.sleep(0 if has_ended else 1.0)
        job.heard += 1

    async def _has_ended(self, client: Client, handle: Handle[Any], job: Job) -> bool:
        try:
            result = await handle.wait_for_completion(_patience(job))
        except CompletionTimeoutError:
            with suppress(AikiError):
                await handle.resume()
            return job.is_forgotten_soon and await self._is_forgotten(handle)
        except RunEndedError as error:
            if isinstance(error, RunDeadLetteredError) or self._watch.lost_children(handle.id):
                await self._redrive(client, handle, job)
            else:
                self._judge(error, job)
        except RunNotFoundError:
            return job.is_forgotten_soon and self._watch.has_ended(handle.id)
        except AikiError:
            return False
        else:
            if job.fails or not self._is_right(result, job):
                self._complain(f"job {job.number} ({job.workflow.name}) ended with {result!r}")
            if not self._watch.has_ever_ended(handle.id):
                self._complain(f"job {job.number} ({job.workflow.name}) was told to have ended, and goes on")
        return True

    async def _is_forgotten(self, handle: Handle[Any]) -> bool:
        """Whether a run ended and is gone. One that was kept for a second is, if its client was frozen meanwhile."""
        try:
            await handle.get()
        except RunNotFoundError:
            return self._watch.has_ended(handle.id)
        except AikiError:
            pass  # Once more.
        return False

    def _judge(self, error: RunEndedError, job: Job) -> None:
        """See whether a run was to end without a result."""
        if isinstance(error, RunFailedError) and job.fails and "BusyError" in str(error):
            return
        if isinstance(error, RunCancelledError) and job.ends_cancelled:
            return  # Whether it had begun is seen from what it recorded.
        self._complain(f"job {job.number} ({job.workflow.name}) ended: {error!r}")

    def _is_right(self, result: Any, job: Job) -> bool:
        return job.is_right(result, in_vain=self._watch.was_cancelled_in_vain(job.run_id))

    def _was_right(self, run: RunState, job: Job) -> bool:
        """Whether a run that was buried and redriven ended as it had to."""
        if run.status is RunStatus.FAILED:
            return job.fails
        if run.status is RunStatus.CANCELLED:
            return job.ends_cancelled
        return run.status is RunStatus.COMPLETED and self._is_right(json.loads(run.result or "null"), job)

    async def _redrive(self, client: Client, handle: Handle[Any], job: Job) -> None:
        """Let a run go on until it neither is buried nor has failed with a child that was, and see how it ended."""
        run = await self._redriven(client, handle, job)
        if run is not None and not self._was_right(run, job):
            self._complain(f"job {job.number} was redriven, and ended {run.status} with {run.result or run.failure!r}")

    async def _redriven(self, client: Client, handle: Handle[Any], job: Job) -> RunState | None:
        job.is_cured = True
        while True:
            try:
                run = await handle.get()
                if run.status is RunStatus.DEAD_LETTERED:
                    await self._dig_up(client, run)
                elif self._lost_a_child(run):
                    await handle.retry()
                elif run.status.is_final:
                    return run
            except RunNotFoundError:
                if job.is_forgotten_soon:
                    return None
            except AikiError:
                pass  # Once more.
            await asyncio.sleep(1.0)

    def _lost_a_child(self, run: RunState) -> bool:
        """Whether it was a child that was buried, and nothing else, by which a run failed."""
        causes = set(run.failed_operations)
        return (
            run.status is RunStatus.FAILED and bool(causes) and causes.issubset(self._watch.lost_children(run.run_id))
        )

    async def _dig_up(self, client: Client, run: RunState) -> None:
        page = await client.dead_letters(limit=100)
        for stored in page.letters:
            if stored.letter.run_id == run.run_id:
                await client.redrive(stored.letter.id)


@lru_cache(maxsize=1000)
def _with_options(workflow: Workflow[..., Any], options: tuple[tuple[str, Any], ...]) -> Workflow[..., Any]:
    """Give a copy with *options*. It looks at its annotations when it is first used, which takes as long as a run."""
    return workflow.with_options(**dict(options))


def _patience(job: Job) -> float | None:
    """Tell how long a client waits before it looks after its run."""
    if job.is_unsure and ("resume", None) in job.says:
        return 20.0  # A pause of which nobody knows whether it arrived may come at any time, and be meant.
    return FROZEN_SECONDS if job.is_forgotten_soon else None


_SAYINGS: dict[str, Callable[[Handle[Any], Any], Awaitable[None]]] = {
    "send": lambda handle, value: handle.send("word", value),
    "pause": lambda handle, value: handle.pause(),
    "resume": lambda handle, value: handle.resume(),
    "cancel": lambda handle, value: handle.cancel(),
}
