"""A session: one life of a worker's subscriptions.

Everything that was delivered in it and not acknowledged belongs to somebody else
the moment it ends, which therefore is never hidden: who runs it learns it at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from aiki.engine.commands import NotifyWorker, WorkerCommand
from aiki.errors import BrokerError, DeliveryLostError
from aiki.ports.broker import Delivery, Subscription, WorkerBroker

__all__ = ["Intake", "Session"]

OnCommand = Callable[["Intake", Delivery[WorkerCommand]], None]
OnNotice = Callable[[NotifyWorker], None]


class Intake:
    """One subscription to commands, and how many of its deliveries are not acknowledged."""

    def __init__(self, subscription: Subscription[WorkerCommand]) -> None:
        self.subscription = subscription
        self.held = 0
        self.is_stopped = False

    async def acknowledge(self, delivery: Delivery[WorkerCommand]) -> None:
        """Tell the broker that a command has been dealt with.

        Raises:
            DeliveryLostError: it is somebody else's already.
        """
        await self.subscription.acknowledge((delivery,))
        self.held -= 1
        if self.is_stopped and self.held == 0:
            await self.subscription.close()


class Session:
    """Takes commands and notices from the broker until the connection is lost."""

    def __init__(self, broker: WorkerBroker, worker: str, *, on_command: OnCommand, on_notice: OnNotice) -> None:
        self._broker = broker
        self._worker = worker
        self._on_command = on_command
        self._on_notice = on_notice
        self._control: Subscription[NotifyWorker] | None = None
        self._intakes: list[Intake] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changing = asyncio.Lock()
        self._is_stopped = False

    async def open(self, queues: tuple[str, ...], *, prefetch: int) -> None:
        """Subscribe: first to what may be said of a run, then to the runs.

        Raises:
            BrokerError: that could not be done.
        """
        self._control = await self._broker.consume_control(self._worker)
        self._spawn(self._take_notices(self._control))
        await self._take_from(queues, prefetch)

    async def wait_until_lost(self) -> None:
        """Wait for the end of the session.

        Raises:
            BrokerError: the connection or a subscription was lost.
        """
        await asyncio.shield(self._ended)

    def take(self, queues: tuple[str, ...], *, prefetch: int) -> None:
        """Take at most *prefetch* more commands, of *queues*, from soon on; what was delivered before stays."""
        if not self._ended.done():
            self._spawn(self._take_instead(queues, prefetch))

    async def _take_instead(self, queues: tuple[str, ...], prefetch: int) -> None:
        async with self._changing:
            if not self._is_stopped:
                await self._stop_intakes()
                await self._take_from(queues, prefetch)

    async def stop_taking(self) -> None:
        """Take nothing more. What was delivered stays until it is acknowledged, or the session is closed."""
        async with self._changing:
            self._is_stopped = True
            await self._stop_intakes()

    async def close(self) -> None:
        """End the session: what was not acknowledged goes back."""
        if not self._ended.done():
            self._ended.set_result(None)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        subscriptions = [self._control, *(intake.subscription for intake in self._intakes)]
        for subscription in subscriptions:
            if subscription is not None:
                with suppress(BrokerError):
                    await subscription.close()

    async def _take_from(self, queues: tuple[str, ...], prefetch: int) -> None:
        if prefetch <= 0:
            return
        intake = Intake(await self._broker.consume_commands(queues, prefetch=prefetch))
        self._intakes.append(intake)
        self._spawn(self._take_commands(intake))

    async def _stop_intakes(self) -> None:
        for intake in self._intakes:
            if not intake.is_stopped:
                intake.is_stopped = True
                with suppress(DeliveryLostError):
                    await intake.subscription.stop()
                    if intake.held == 0:
                        await intake.subscription.close()

    async def _take_commands(self, intake: Intake) -> None:
        while True:
            try:
                deliveries = await intake.subscription.receive()
            except DeliveryLostError:
                if intake.is_stopped and intake.held == 0:
                    self._intakes.remove(intake)
                    return  # We closed it ourselves.
                raise
            intake.held += len(deliveries)
            for delivery in deliveries:
                self._on_command(intake, delivery)

    async def _take_notices(self, control: Subscription[NotifyWorker]) -> None:
        while True:
            deliveries = await control.receive()
            for delivery in deliveries:
                self._on_notice(delivery.body)
            await control.acknowledge(deliveries)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="aiki-session")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # Nobody may be waiting yet.
