"""A session: one life of a worker's subscriptions.

Everything that was delivered in it and not acknowledged belongs to somebody else
the moment it ends, which therefore is never hidden: who runs it learns it at once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from aiki.asynchronous import end
from aiki.engine.commands import NotifyWorker, WorkerCommand
from aiki.errors import BrokerError, DeliveryLostError
from aiki.ports.broker import Delivery, Subscription, WorkerBroker

__all__ = ["Intake", "Session"]

# What stopped subscriptions have let go of is taken anew when it is this part (one in so many) of what is missing.
FILL_AT = 4

OnCommand = Callable[["Intake", Delivery[WorkerCommand]], None]
OnNotice = Callable[[NotifyWorker], None]


class Intake:
    """One subscription to commands, and which of its deliveries are not acknowledged."""

    def __init__(
        self, subscription: Subscription[WorkerCommand], *, room: int, on_less: Callable[["Intake"], None]
    ) -> None:
        """*room* is how many may be unacknowledged; *on_less* hears when one is no more."""
        self.subscription = subscription
        self.room = room
        self.is_stopped = False
        self._on_less = on_less
        self._tags: set[int] = set()

    @property
    def held(self) -> int:
        """How many deliveries are not acknowledged."""
        return len(self._tags)

    async def receive(self) -> Sequence[Delivery[WorkerCommand]]:
        """Wait for deliveries. Raises as the subscription does."""
        deliveries = await self.subscription.receive()
        self._tags.update(delivery.tag for delivery in deliveries)
        return deliveries

    async def acknowledge(self, delivery: Delivery[WorkerCommand]) -> None:
        """Tell the broker that a command has been dealt with.

        Raises:
            DeliveryLostError: it is somebody else's already.
        """
        await self.subscription.acknowledge((delivery,))
        self._tags.discard(delivery.tag)
        if self.is_stopped and not self._tags:
            await self.subscription.close()
        self._on_less(self)


class Session:
    """Takes commands and notices from the broker until the connection is lost.

    How many commands it may have at a time changes while it lives. A broker is told that with a subscription, so there
    is a new one for what is left, and the old one is stopped and keeps what it was given. What it lets go of then has
    to be taken by further ones: not one by one, but when it is a good part of what is missing. So long runs among
    many short ones leave a few subscriptions, and little of the room unused.
    """

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
        self._queues: tuple[str, ...] = ()
        self._room = 0
        self._is_stopped = False

    async def open(self, queues: tuple[str, ...], *, room: int) -> None:
        """Subscribe: first to what may be said of a run, then to the runs, *room* of them at a time.

        Raises:
            BrokerError: that could not be done.
        """
        self._control = await self._broker.consume_control(self._worker)
        self._spawn(self._take_notices(self._control))
        self._queues, self._room = queues, room
        await self._fill()

    async def wait_until_lost(self) -> None:
        """Wait for the end of the session.

        Raises:
            BrokerError: the connection or a subscription was lost.
        """
        await asyncio.shield(self._ended)

    def take(self, queues: tuple[str, ...], *, room: int) -> "asyncio.Task[None] | None":
        """Have at most *room* commands, of *queues*, from soon on; what was delivered before stays, and counts.

        What is returned is done when no more than that is given. There is nothing where the session is over.
        """
        if self._ended.done():
            return None
        self._queues, self._room = queues, room
        return self._spawn(self._take_instead())

    async def _take_instead(self) -> None:
        async with self._changing:
            if not self._is_stopped:
                await self._stop_intakes()
                await self._fill()

    async def _take_more(self) -> None:
        async with self._changing:
            if not self._is_stopped and self._is_worth_filling:
                await self._fill()

    async def stop_taking(self) -> None:
        """Take nothing more. What was delivered stays until it is acknowledged, or the session is closed."""
        async with self._changing:
            self._is_stopped = True
            await self._stop_intakes()

    async def close(self) -> None:
        """End the session: what was not acknowledged goes back."""
        if not self._ended.done():
            self._ended.set_result(None)
        await end(*self._tasks)
        subscriptions = [self._control, *(intake.subscription for intake in self._intakes)]
        for subscription in subscriptions:
            if subscription is not None:
                with suppress(BrokerError):
                    await subscription.close()

    async def _fill(self) -> None:
        """Subscribe for the room that nobody fills, if there is any."""
        room = self._free
        if room > 0:
            subscription = await self._broker.consume_commands(self._queues, prefetch=room)
            intake = Intake(subscription, room=room, on_less=self._on_less)
            self._intakes.append(intake)
            self._spawn(self._take_commands(intake))

    @property
    def _missing(self) -> int:
        """How much of the room no subscription fills that still takes commands."""
        return self._room - sum(intake.room for intake in self._intakes if not intake.is_stopped)

    @property
    def _free(self) -> int:
        """How much of what is missing is not taken up by what stopped subscriptions hold."""
        return self._missing - sum(intake.held for intake in self._intakes if intake.is_stopped)

    @property
    def _is_worth_filling(self) -> bool:
        return 0 < self._missing <= self._free * FILL_AT

    def _on_less(self, intake: Intake) -> None:
        if intake.is_stopped and not self._ended.done() and self._is_worth_filling:
            self._spawn(self._take_more())

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
                deliveries = await intake.receive()
            except DeliveryLostError:
                if intake.is_stopped and intake.held == 0:
                    self._intakes.remove(intake)
                    return  # We closed it ourselves.
                raise
            for delivery in deliveries:
                self._on_command(intake, delivery)

    async def _take_notices(self, control: Subscription[NotifyWorker]) -> None:
        while True:
            deliveries = await control.receive()
            for delivery in deliveries:
                self._on_notice(delivery.body)
            await control.acknowledge(deliveries)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="aiki-session")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # Nobody may be waiting yet.
