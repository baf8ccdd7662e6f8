"""What the processes of a simulation do: orchestrators, workers, clients. All of it is the real code."""

import asyncio
from typing import Any

from aiki.errors import AikiError, EnqueueTimeoutError, RunEndedError, RunFailedError
from aiki.orchestrator.rebuild import rebuild
from aiki.orchestrator.service import Orchestrator
from aiki.orchestrator.settings import OrchestratorSettings
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle
from aiki.testing.simulation.workload import TASKS, WORKFLOWS, Job
from aiki.testing.simulation.world import Member, World
from aiki.worker.service import Worker, WorkerSettings

__all__ = ["Driver", "elsewhere", "orchestrator", "rebuilder", "worker"]


async def orchestrator(world: World, member: Member) -> None:
    """Move runs forward."""
    await member.broker.start()
    service = Orchestrator(
        member.broker,
        member.store,
        member.clock,
        OrchestratorSettings(name=str(member.process), sweep_every=world.sweep_every),
    )
    member.parts["orchestrator"] = service
    try:
        await service.run()
    finally:
        await member.broker.close()


async def worker(world: World, member: Member) -> None:
    """Execute runs."""
    await _work(member, workflows=WORKFLOWS)


async def elsewhere(world: World, member: Member) -> None:
    """Execute the tasks that workflows send elsewhere, and runs as well."""
    await _work(member, workflows=WORKFLOWS, tasks=TASKS)


async def _work(member: Member, **definitions: Any) -> None:
    client = Client(member.broker, clock=member.clock, name=member.name, timeout=5.0, listen=False)
    async with client:
        settings = WorkerSettings(lease_after=40.0, lease=30.0, alone_after=10.0)
        service = Worker(
            client, **definitions, name=member.name, max_concurrent_runs=5, shutdown_grace=2.0, settings=settings
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

    def __init__(self, jobs: list[Job], complain: Any) -> None:
        self.jobs = jobs
        self._complain = complain

    async def role(self, world: World, member: Member) -> None:
        """Be the process of a client; a new one goes on where the old one was."""
        async with Client(member.broker, clock=member.clock, name=member.name, timeout=5.0) as client:
            member.parts["client"] = client
            await asyncio.gather(*(self._drive(client, job, world) for job in self.jobs))
            await asyncio.Future()

    async def _drive(self, client: Client, job: Job, world: World) -> None:
        await asyncio.sleep(world.random.uniform(0, 0.2))
        handle = await self._handle(client, job, world)
        while job.said < len(job.says):
            await self._say(handle, job)
        await self.hear(handle, job)

    async def _say(self, handle: Handle[Any], job: Job) -> None:
        """Send the next word; if nobody knows whether it arrived, once more."""
        job.is_unsure |= job.is_saying
        job.is_saying = True
        try:
            await handle.send("word", job.says[job.said])
        except AikiError:
            await asyncio.sleep(0.2)
        else:
            job.said += 1
            job.is_saying = False

    async def _handle(self, client: Client, job: Job, world: World) -> Handle[Any]:
        if job.run_id is not None:
            return client.handle(job.run_id, job.workflow)
        wanted = job.workflow.with_options(**job.options) if job.options else job.workflow
        while True:
            try:
                handle: Handle[Any] = await wanted.enqueue(client, *job.arguments)
            except EnqueueTimeoutError:
                continue  # What may have come about all the same is found in the store, and has to end as well.
            except AikiError as error:
                self._complain(f"job {job.number} was refused: {error!r}")
                await asyncio.Future()
            job.run_id, job.accepted_at = handle.id, world.loop.time()
            job.is_stored = "idempotency_key" in job.options or "confirm" in job.options
            return handle

    async def hear(self, handle: Handle[Any], job: Job) -> None:
        """Wait for the outcome, and see whether it is right."""
        while True:
            try:
                result = await handle.wait_for_completion()
            except RunFailedError as error:
                if not job.fails or "BusyError" not in str(error):
                    self._complain(f"job {job.number} ({job.workflow.name}) failed: {error}")
            except RunEndedError as error:
                self._complain_unless_buried(error, job)
                await asyncio.sleep(1.0)
                continue
            except AikiError:
                await asyncio.sleep(1.0)
                continue
            else:
                if job.fails or not job.is_right(result):
                    self._complain(f"job {job.number} ({job.workflow.name}) ended with {result!r}")
            job.heard += 1
            return

    def _complain_unless_buried(self, error: RunEndedError, job: Job) -> None:
        if type(error).__name__ != "RunDeadLetteredError":
            self._complain(f"job {job.number} ({job.workflow.name}) ended: {error!r}")
