"""The crew: everything that a worker executes right now, each in an asyncio task of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from aiki.engine.commands import ExecuteRun, ExecuteTask, NotifyWorker, WorkerCommand, WorkerNotice
from aiki.engine.events import RunOrphaned, TaskFinished
from aiki.engine.journal import Failure
from aiki.errors import BrokerError, ClientClosedError, RunAbandonedError, UnknownTaskError
from aiki.observability.logs import get_logger
from aiki.ports.broker import Delivery
from aiki.worker.attempts import execute_task
from aiki.worker.holding import HeldRun, orphaned
from aiki.worker.hosting import WorkerHost
from aiki.worker.session import Intake
from aiki.worker.surroundings import Surroundings

__all__ = ["Crew"]

log = get_logger(__name__)


class Crew:
    """Serves deliveries side by side, within the slots of the worker."""

    def __init__(self, surroundings: Surroundings, *, on_leases: Callable[[], Awaitable[None]]) -> None:
        """*on_leases* is awaited whenever the number of runs under a lease changed."""
        self._surroundings = surroundings
        self._on_leases = on_leases
        self._slots = asyncio.Semaphore(surroundings.settings.max_concurrent_runs)
        self._held: dict[str, HeldRun] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    @property
    def busy(self) -> int:
        """How much is served right now."""
        return len(self._jobs)

    @property
    def held_runs(self) -> tuple[str, ...]:
        """The ids of the runs that are held."""
        return tuple(self._held)

    @property
    def orders(self) -> Mapping[str, ExecuteRun]:
        """The orders of the runs that are held, by run id. What has arrived and was not looked at yet is not there."""
        return {run_id: held.command for run_id, held in self._held.items()}

    @property
    def leased(self) -> int:
        """How many runs are held under a lease."""
        return sum(held.has_lease for held in self._held.values())

    def on_command(self, intake: Intake, delivery: Delivery[WorkerCommand]) -> None:
        """Begin to serve a delivery."""
        match delivery.body:
            case ExecuteRun() as command if delivery.redelivered:
                self._start(self._report_orphan(intake, delivery, command))
            case ExecuteRun() as command:
                self._start(self._serve_run(intake, delivery, command))
            case ExecuteTask() as command:
                # Its first executor may be gone or not: a task is executed at least once.
                self._attempts.add(self._start(self._serve_task(intake, delivery, command)))

    def on_notice(self, notice: NotifyWorker) -> None:
        """Pass on what an orchestrator says of a dispatch, if it is held here; if it is not, say so when asked."""
        held = self._held.get(notice.run_id)
        if held is not None and held.pair == notice.pair:
            if notice.notice is not WorkerNotice.DOUBTED:
                held.notify(notice)
        elif notice.notice is WorkerNotice.DOUBTED:
            log.warning("run.not_held", run_id=notice.run_id, epoch=notice.pair.epoch)
            self._start(self._disown(notice))

    def consider_leases(self) -> None:
        """Let runs whose commands have been held for long go on under leases."""
        for held in self._held.values():
            held.consider_lease()

    def abandon(self, *, leased: bool) -> tuple[str, ...]:
        """Let go at once of what the broker hands to others now, and tell which runs; *leased* ones only if so said."""
        lost = [held for held in self._held.values() if leased or not held.is_leased]
        for held in lost:
            held.abandon()
        if leased or not self._is_leaving:
            for attempt in self._attempts:
                attempt.cancel()
        # Else whoever leaves ends what it began: orders that were held by a consumer that was cancelled may never come
        # again.
        return tuple(held.command.run_id for held in lost)

    def disown(self, run_ids: Collection[str]) -> None:
        """Say of what was abandoned that nobody here holds it, as soon as there is a connection again.

        Usually the broker has handed it to others by then, who say the same, and one of both is heard. But a broker
        may lose an order with its node, and may take long to notice that we are gone.
        """
        for held in [self._held[run_id] for run_id in run_ids if run_id in self._held]:
            self._start(self._disown(held.command))

    def catch_up(self) -> None:
        """Be told again what was said of the runs that are held while nobody here could hear it.

        Those under a lease alone are held across a lost connection; notices are not kept for anybody.
        """
        for held in self._held.values():
            if held.is_leased:
                self._start(held.say_again())

    def hand_back(self) -> None:
        """Give everything back in order: nothing new starts."""
        self._is_leaving = True
        for held in tuple(self._held.values()):
            held.hand_back()

    def give_up(self) -> None:
        """Give back now what is still there."""
        for held in tuple(self._held.values()):
            held.give_up()
        for attempt in self._attempts:
            attempt.cancel()

    async def finish(self, *, timeout: float) -> bool:
        """Wait until nothing is served any more; tell whether that was in time."""
        if self._jobs:
            await asyncio.wait(tuple(self._jobs), timeout=timeout)
        return not self._jobs

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._on_done)
        return job

    def _on_done(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        self._attempts.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("worker.job_broke", worker=self._surroundings.worker, exc_info=error)

    async def _serve_run(self, intake: Intake, delivery: Delivery[WorkerCommand], command: ExecuteRun) -> None:
        held = HeldRun(
            command,
            self._surroundings,
            slots=self._slots,
            acknowledge=lambda: intake.acknowledge(delivery),
            on_lease=self._on_leases,
        )
        other = self._held.get(command.run_id)
        if other is not None and _is_outdated(command, other.command):
            # A publish that nobody saw confirmed may arrive at any time. What came of it is held here already, and to
            # hand it back is refused. After the store was put back to an earlier point it is not: then the epoch rises.
            log.info("run.outdated", run_id=command.run_id, workflow=command.workflow, epoch=command.pair.epoch)
            await self._report(orphaned(command, self._surroundings, handed_back=True), intake, delivery)
            return
        if other is not None and other.pair == command.pair:
            # Said twice. Whatever becomes of the first, it sees to it: its own command is not acknowledged before.
            await self._leave_to_first(intake, delivery, command)
            return
        if other is not None:
            other.fence()  # This is a newer dispatch: the older one is not valid any more.
        self._held[command.run_id] = held
        if self._is_leaving:
            held.hand_back()
        try:
            await held.serve()
        finally:
            if self._held.get(command.run_id) is held:
                del self._held[command.run_id]
            if held.has_lease:
                await self._on_leases()

    async def _leave_to_first(self, intake: Intake, delivery: Delivery[WorkerCommand], command: ExecuteRun) -> None:
        log.info("run.ordered_twice", run_id=command.run_id, workflow=command.workflow, epoch=command.pair.epoch)
        with suppress(BrokerError):  # Then it comes again, as one that was delivered before.
            await intake.acknowledge(delivery)

    async def _disown(self, dispatch: ExecuteRun | NotifyWorker) -> None:
        with suppress(BrokerError, ClientClosedError):  # Whoever gets the order says it, or the sweep finds out.
            await self._surroundings.publisher.publish(orphaned(dispatch, self._surroundings))

    async def _report_orphan(self, intake: Intake, delivery: Delivery[WorkerCommand], command: ExecuteRun) -> None:
        """Somebody may have started this dispatch, and may still be at it: say so, and do not touch the run."""
        log.info("run.orphaned", run_id=command.run_id, workflow=command.workflow, epoch=command.pair.epoch)
        await self._report(orphaned(command, self._surroundings), intake, delivery)

    async def _report(self, event: RunOrphaned, intake: Intake, delivery: Delivery[WorkerCommand]) -> None:
        try:
            await self._surroundings.publisher.publish(event)
            await intake.acknowledge(delivery)
        except (BrokerError, ClientClosedError) as error:
            # It comes again, to us or to somebody else, and is reported again.
            log.debug("run.not_acknowledged", run_id=event.run_id, error=error.message)

    async def _serve_task(self, intake: Intake, delivery: Delivery[WorkerCommand], command: ExecuteTask) -> None:
        """Execute an attempt of a task for a run that is elsewhere."""
        if self._is_leaving:
            return  # It goes back to its queue when the worker is gone.
        try:
            async with self._slots, self._surroundings.gate.shared():
                event = await self._attempted(command)
            await self._surroundings.publisher.publish(event)
            await intake.acknowledge(delivery)
        except (BrokerError, ClientClosedError, RunAbandonedError) as error:
            log.debug("task.not_acknowledged", run_id=command.run_id, task=command.task, error=error.message)

    async def _attempted(self, command: ExecuteTask) -> TaskFinished:
        try:
            task = self._surroundings.registry.task(command.task)
        except UnknownTaskError as error:
            log.error("task.refused", run_id=command.run_id, task=command.task, error=error.message)
            return self._refusal(command, error)
        return await execute_task(command, task, WorkerHost(self._surroundings))

    def _refusal(self, command: ExecuteTask, error: UnknownTaskError) -> TaskFinished:
        return TaskFinished(
            id=f"finished:{command.task_id}",
            run_id=command.run_id,
            at=self._surroundings.clock.now(),
            incarnation=command.incarnation,
            task_id=command.task_id,
            worker=self._surroundings.worker,
            failure=Failure(type=type(error).__name__, message=str(error)),
        )


def _is_outdated(command: ExecuteRun, held: ExecuteRun) -> bool:
    """Whether *command* is, by its number, an earlier dispatch of the run than the one that is held."""
    return command.incarnation == held.incarnation and command.pair.epoch < held.pair.epoch
