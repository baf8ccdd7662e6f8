"""What the contract needs to put a broker through its paces, and the values that it sends."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Protocol, TypeVar

from aiki.engine.commands import (
    AnnounceAcceptance,
    AnnounceOutcome,
    AnnounceProgress,
    DeadLetter,
    ExecuteRun,
    NotifyWorker,
    WorkerNotice,
)
from aiki.engine.events import Event, SignalSent
from aiki.engine.ids import partition_of
from aiki.engine.payload import NULL, Payload
from aiki.engine.state import Pair
from aiki.engine.status import RunStatus
from aiki.ports.broker import Broker, Delivery, Subscription

__all__ = [
    "AT",
    "PATIENCE",
    "BrokerSystem",
    "acceptance",
    "bodies_of",
    "collect",
    "dead_letter",
    "execute_run",
    "outcome",
    "progress",
    "run_in",
    "signal",
    "told",
    "until",
]

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds after which something that must happen counts as not happening."""

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


class BrokerSystem(Protocol):
    """One broker with everybody who is connected to it. What it made, its fixture closes."""

    @property
    def partitions(self) -> int:
        """How many partitions it was laid out with: at least two."""
        ...

    async def connect(self) -> Broker:
        """Start another process's end of the broker."""
        ...

    async def cut(self, broker: Broker) -> None:
        """Lose the connections of *broker*, which makes them again by itself."""
        ...

    async def isolate(self, broker: Broker) -> None:
        """Lose the connections of *broker*, and let it make no others until it may rejoin."""
        ...

    async def rejoin(self, broker: Broker) -> None:
        """Let *broker* connect again."""
        ...

    async def inject(self, queue: str, body: bytes) -> None:
        """Put *body* into *queue*, past every codec. Returns once it is there."""
        ...


async def collect(subscription: Subscription[T], number: int) -> list[Delivery[T]]:
    """Receive until *number* deliveries have come."""
    deliveries: list[Delivery[T]] = []
    async with asyncio.timeout(PATIENCE):
        while len(deliveries) < number:
            deliveries += await subscription.receive()
    return deliveries


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that shows nowhere but in a property."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - a property wakes nobody.
            await asyncio.sleep(0.01)


def bodies_of(deliveries: Sequence[Delivery[T]]) -> list[T]:
    """What was delivered, without the delivering."""
    return [delivery.body for delivery in deliveries]


def run_in(partition: int, *, partitions: int) -> str:
    """Name a run that belongs to *partition*."""
    names = (f"run-{number}" for number in count())
    return next(name for name in names if partition_of(name, partitions) == partition)


def signal(number: int, *, run_id: str = "run-0", payload: Payload = NULL) -> Event:
    """An event that can be told from others."""
    return SignalSent(id=f"event-{number}", run_id=run_id, at=AT, name="go", payload=payload)


def execute_run(number: int, *, queue: str) -> ExecuteRun:
    """An order that can be told from others."""
    return ExecuteRun(
        queue=queue,
        run_id=f"run-{number}",
        incarnation="first",
        pair=Pair(1, "dispatch"),
        workflow="contract",
        version="1",
        input=NULL,
        now=AT,
        created_at=AT,
    )


def outcome(run_id: str, *, client: str | None = None) -> AnnounceOutcome:
    """The notice that a run has completed."""
    return AnnounceOutcome(
        client=client,
        run_id=run_id,
        workflow="contract",
        version="1",
        status=RunStatus.COMPLETED,
        input_hash="0",
        at=AT,
        result=NULL,
    )


def progress(run_id: str) -> AnnounceProgress:
    """The notice that a run moved."""
    return AnnounceProgress(run_id=run_id, workflow="contract", version="1", status=RunStatus.RUNNING, at=AT)


def acceptance(request_id: str, *, client: str) -> AnnounceAcceptance:
    """The notice that a run is stored."""
    return AnnounceAcceptance(
        client=client,
        request_id=request_id,
        run_id="run-0",
        workflow="contract",
        version="1",
        status=RunStatus.QUEUED,
        input_hash="0",
        existing=False,
    )


def told(worker: str, run_id: str) -> NotifyWorker:
    """What one worker is told."""
    return NotifyWorker(worker=worker, run_id=run_id, pair=Pair(1, "dispatch"), notice=WorkerNotice.FENCED)


def dead_letter(number: int, *, origin: str = "aiki.events.0", body: str = "?") -> DeadLetter:
    """A letter that can be told from others."""
    return DeadLetter(id=f"letter-{number}", reason="contract", at=AT, origin=origin, body=body)
