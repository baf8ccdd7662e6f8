"""A run in the hands of a worker: from the delivery of its command to its acknowledgement.

The command stays unacknowledged while the run executes, so that the broker hands
it over the moment this worker is gone. Whatever ends the execution, one of three
things becomes of the command: it is acknowledged, because what followed from it is
confirmed; it is acknowledged, because the run was given back (``RunOrphaned``); or
it is left to the broker, because it is not ours any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from aiki.asynchronous import end
from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerNotice
from aiki.engine.events import LeaseRenewed, RunFailed, RunOrphaned, RunStarted
from aiki.engine.journal import Failure
from aiki.engine.state import Pair
from aiki.errors import (
    AikiError,
    BrokerError,
    ClientClosedError,
    DeliveryLostError,
    RunAbandonedError,
    UnknownWorkflowError,
)
from aiki.observability.logs import Logger, get_logger
from aiki.sdk.workflow import Workflow
from aiki.worker.execution import Execution
from aiki.worker.hosting import RunHost
from aiki.worker.surroundings import Surroundings

__all__ = ["HeldRun", "orphaned"]

log = get_logger(__name__)

Acknowledge = Callable[[], Awaitable[None]]

# How long a run that is given back at the end of a stop may take to be so. After that its command goes back instead.
GIVE_BACK_SECONDS = 2.0


class HeldRun:
    """One dispatch of a run, held by this worker."""

    def __init__(
        self,
        command: ExecuteRun,
        surroundings: Surroundings,
        *,
        slots: asyncio.Semaphore,
        acknowledge: Acknowledge,
        on_lease: Callable[[], Awaitable[None]],
    ) -> None:
        """*acknowledge* acknowledges the command; *on_lease* is awaited before that happens ahead of the end."""
        self.command = command
        self.has_lease = False
        """Whether the run is held under a lease: it takes a slot, and soon no unacknowledged command."""
        self.is_leased = False
        """Whether the command was acknowledged already: only the lease holds the run."""
        self._surroundings = surroundings
        self._slots = slots
        self._acknowledge = acknowledge
        self._on_lease = on_lease
        self._host = RunHost(surroundings, command)
        self._waiting: asyncio.Timeout | None = None
        self._execution: Execution | None = None
        self._lease: asyncio.Task[None] | None = None
        self._held_since = surroundings.clock.monotonic()
        self._is_called_off = False
        self._is_given_back = False
        self._is_stopping = False
        """Whether the worker stops, which cannot wait for long."""
        self._is_lost = False

    @property
    def pair(self) -> Pair:
        """The dispatch."""
        return self.command.pair

    @property
    def _log(self) -> Logger:
        command = self.command
        return log.bind(run_id=command.run_id, workflow=command.workflow, epoch=command.pair.epoch)

    async def serve(self) -> None:
        """Execute the run as far as it goes, and see to its command. Returns when the run is held no longer."""
        try:
            workflow = self._surroundings.registry.workflow(self.command.workflow, self.command.version)
        except UnknownWorkflowError as error:
            await self._refuse(error)
        else:
            await self._execute_in_turn(workflow)
        if self._is_given_back and not self._is_lost:
            await self._give_back()
        await self._settle()

    def notify(self, notice: NotifyWorker) -> None:
        """Take what an orchestrator has to say about this dispatch."""
        if notice.notice is WorkerNotice.FENCED:
            self.fence()
        elif self._execution is not None:
            self._execution.notify(notice)

    def fence(self) -> None:
        """Stop: the dispatch is not valid any more. Its command is, as far as the broker knows, still ours to end."""
        self._log.warning("worker.fenced", worker=self._surroundings.worker)
        self._stop_at_once()

    def abandon(self) -> None:
        """Stop: the command belongs to somebody else now, or soon."""
        self._is_lost = True
        self._stop_at_once()

    def hand_back(self) -> None:
        """Give the run back in order: what executes may end within the grace, nothing new starts."""
        self._is_stopping = True
        if self._execution is not None:
            self._execution.hand_back()
        elif not self._is_called_off:
            self._is_given_back = True
            self._call_off()

    def give_up(self) -> None:
        """Give the run back now: the grace is over. That says nothing against the run."""
        self._is_stopping = True
        self._is_given_back = True
        self._stop_at_once()

    def consider_lease(self) -> None:
        """Go on under a lease, if the command has been held for long."""
        age = self._surroundings.clock.monotonic() - self._held_since
        if self._execution is not None and self._lease is None and age >= self._surroundings.settings.lease_after:
            self._lease = asyncio.get_running_loop().create_task(self._keep_lease())

    def _stop_at_once(self) -> None:
        self._host.abandon()
        if self._execution is not None:
            self._execution.abandon()
        self._call_off()

    def _call_off(self) -> None:
        self._is_called_off = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def _execute_in_turn(self, workflow: Workflow[..., Any]) -> None:
        if self._is_called_off or not await self._has_entered():
            return
        try:
            if not self._is_called_off:
                await self._execute(workflow)
        finally:
            self._surroundings.gate.leave(alone=self.command.alone)
            self._slots.release()

    async def _has_entered(self) -> bool:
        """Wait for a slot, and for whoever has to be alone. Called off, or after too long, the run is given back."""
        gate, settings = self._surroundings.gate, self._surroundings.settings
        if not self._slots.locked() and gate.is_open(alone=self.command.alone):
            await self._enter()  # Which lets us in now.
            return True
        # Longer than this and the broker would ask for the command back: others may have room.
        patience = settings.alone_after if self.command.alone else settings.lease_after
        try:
            async with asyncio.timeout(patience) as self._waiting:
                await self._enter()
        except TimeoutError:
            self._is_given_back |= not self._is_called_off
            return False
        finally:
            self._waiting = None
        return True

    async def _enter(self) -> None:
        await self._slots.acquire()
        try:
            await self._surroundings.gate.enter(alone=self.command.alone)
        except BaseException:  # Called off, or out of patience: the slot was ours already.
            self._slots.release()
            raise

    async def _execute(self, workflow: Workflow[..., Any]) -> None:
        command = self.command
        log.debug("run.started", run_id=command.run_id, recovered=command.recovered, alone=command.alone)
        self._execution = Execution(self.command, workflow, self._host)
        try:
            await self._execution.execute()
        except RunAbandonedError:
            self._log.debug("run.left")
        except (BrokerError, ClientClosedError) as error:
            self._log.warning("run.cut_short", error=error.message)  # The process closes its connection.
            self._is_lost = True
        except Exception:  # noqa: BLE001 - whatever it is must not leave the command in our hands for ever
            # Whatever breaks us here would break the next worker as well; losing it counts against the run.
            self._log.exception("run.broke_its_worker")
            await self._publish(orphaned(self.command, self._surroundings))
        finally:
            self._execution = None
            await end(self._lease)

    async def _refuse(self, error: AikiError) -> None:
        """End a run that nobody here can execute, so that whoever waits for it learns why; keep it with the letters."""
        self._log.error("run.refused", error=error.message)
        failure = Failure(type=type(error).__name__, message=str(error))
        facts = self._facts()
        started = RunStarted(**facts, id=self._surroundings.new_id())
        failed = RunFailed(**facts, id=self._surroundings.new_id(), last_seq=self.command.base_seq, failure=failure)
        try:
            await self._host.publish((started, failed))
            letter = self._surroundings.letter_about(self.command, "unknown workflow", str(error))
            await self._surroundings.broker.park(letter, timeout=self._surroundings.questions.timeout)
        except (BrokerError, RunAbandonedError) as trouble:
            # Then the command comes again, to us or to somebody else.
            self._log.warning("run.not_refused", error=trouble.message)
            self._is_lost = True

    async def _give_back(self) -> None:
        """Say that the run was not, or not any further, executed here. Its next dispatch is made at once."""
        event = orphaned(self.command, self._surroundings, handed_back=True)
        # Whoever goes on says it however long it takes: it would keep the command for as long as it lives.
        timeout = GIVE_BACK_SECONDS if self._is_stopping else None
        try:
            await self._surroundings.publisher.publish(event, timeout=timeout)
        except AikiError as error:
            self._is_lost = True
            self._log.info("run.not_given_back", error=error.message)
        else:
            self._log.info("run.given_back")

    async def _settle(self) -> None:
        if self._is_lost or self.is_leased:
            return
        try:
            await self._acknowledge()
        except DeliveryLostError:
            # It comes again, flagged, and whoever gets it finds out that there is nothing left to do.
            self._log.debug("run.not_acknowledged")

    async def _publish(self, event: RunOrphaned) -> None:
        try:
            await self._host.publish((event,))
        except RunAbandonedError:
            self._log.debug("run.left")

    async def _keep_lease(self) -> None:
        """Renew the lease for as long as the run executes; without it, somebody else may have the run."""
        clock, lease = self._surroundings.clock, self._surroundings.settings.lease
        ends: float | None = None
        while True:
            asked = clock.monotonic()
            try:
                confirmed = await self._is_confirmed(asyncio.ensure_future(self._renew(lease)), ends)
            except AikiError as error:
                self._log.debug("run.lease_ends", error=error.message)  # The run is abandoned, or the worker stops.
                return
            if not confirmed:
                self._log.error("run.lease_lost")
                self.abandon()
                return
            if ends is None and clock.monotonic() >= asked + lease:
                continue  # It took longer than the lease lasts, which may be over: the command is kept for a new one.
            ends = asked + lease
            if not self.is_leased and not await self._leave_command():
                return
            await clock.sleep(lease / 3)

    def _renew(self, lease: float) -> Awaitable[None]:
        facts = self._facts()
        until = facts["at"] + timedelta(seconds=lease)
        return self._host.publish((LeaseRenewed(**facts, id=self._surroundings.new_id(), until=until),))

    async def _is_confirmed(self, renewal: "asyncio.Future[None]", ends: float | None) -> bool:
        """Wait for the confirmation of a renewal, no longer than until the lease of before *ends*."""
        if ends is None:
            await renewal  # The command is still ours, however long this takes.
            return True
        clock = self._surroundings.clock
        alarm = asyncio.ensure_future(clock.sleep(ends - clock.monotonic()))
        try:
            await asyncio.wait({renewal, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
            if not renewal.done():
                renewal.cancel()
        return not renewal.cancelled() and renewal.result() is None

    async def _leave_command(self) -> bool:
        self.has_lease = True
        await self._on_lease()
        try:
            await self._acknowledge()
        except DeliveryLostError:
            return False  # It is somebody else's; the worker is about to abandon the run.
        self.is_leased = True
        self._log.info("run.leased")
        return True

    async def say_again(self) -> None:
        """Say once more that the run is held: what was said to us while we could not be reached is said again."""
        try:
            await self._host.publish((RunStarted(**self._facts(), id=self._surroundings.new_id()),))
        except AikiError as error:
            self._log.debug("run.not_said_again", error=error.message)

    def _facts(self) -> dict[str, Any]:
        return {
            "run_id": self.command.run_id,
            "at": self._surroundings.clock.now(),
            "incarnation": self.command.incarnation,
            "pair": self.command.pair,
            "worker": self._surroundings.worker,
        }


def orphaned(
    dispatch: ExecuteRun | NotifyWorker, surroundings: Surroundings, *, handed_back: bool = False
) -> RunOrphaned:
    """Say that a dispatch is executed by nobody."""
    return RunOrphaned(
        id=surroundings.new_id(),
        run_id=dispatch.run_id,
        at=surroundings.clock.now(),
        incarnation=dispatch.incarnation,
        pair=dispatch.pair,
        worker=surroundings.worker,
        handed_back=handed_back,
    )
