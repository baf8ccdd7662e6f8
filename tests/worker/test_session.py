"""How a worker takes no more commands than it has room for, and no fewer, while the room changes."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerCommand
from aiki.engine.payload import dump_payload
from aiki.engine.state import Pair
from aiki.ports.broker import Delivery
from aiki.worker.session import Intake, Session
from tests.sdk.support import SOON, an_engine, eventually

QUEUE = "working@1"
START = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = ExecuteRun(
    queue=QUEUE,
    run_id="a",
    incarnation="one",
    pair=Pair(1, "first"),
    workflow="working",
    version="1",
    input=dump_payload([]),
    now=START,
    created_at=START,
)


class Taken:
    """What a session was given, and the means to deal with it."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.session = Session(broker, "w1", on_command=self._on_command, on_notice=_on_notice)
        self.held: list[tuple[Intake, Delivery[WorkerCommand]]] = []
        self.intakes: set[Intake] = set()

    def _on_command(self, intake: Intake, delivery: Delivery[WorkerCommand]) -> None:
        self.intakes.add(intake)
        self.held.append((intake, delivery))

    async def finish(self, number: int = 0) -> None:
        """Deal with one of those that are held."""
        intake, delivery = self.held.pop(number)
        await intake.acknowledge(delivery)

    async def change(self, room: int, *queues: str) -> None:
        """Have this much room from now on."""
        taking = self.session.take(queues or (QUEUE,), room=room)
        assert taking is not None
        await asyncio.wait_for(taking, SOON)


def _on_notice(_notice: NotifyWorker) -> None:
    """Nothing is said here."""


@asynccontextmanager
async def a_session(*, orders: int, room: int) -> AsyncIterator[Taken]:
    async with an_engine() as engine:
        broker = await engine.connected()
        await broker.send([replace(ORDER, run_id=str(number)) for number in range(orders)], timeout=SOON)
        taken = Taken(broker)
        await taken.session.open((QUEUE,), room=room)
        await eventually(lambda: len(taken.held) == min(room, orders))
        yield taken
        await taken.session.close()


async def test_what_is_held_counts_when_there_is_less_room() -> None:
    async with a_session(orders=30, room=8) as taken:
        await taken.change(7)
        await taken.finish()
        await _settle()

        assert len(taken.held) == 7


async def test_room_that_was_let_go_of_is_taken_again() -> None:
    async with a_session(orders=30, room=8) as taken:
        await taken.change(7)
        for _ in range(7):
            await taken.finish()

        await eventually(lambda: len(taken.held) == 7)


async def test_a_new_queue_is_served_with_the_room_that_is_left() -> None:
    async with a_session(orders=5, room=6) as taken:
        await taken.broker.send([replace(ORDER, queue="another@1", run_id="new")], timeout=SOON)

        await taken.change(6, QUEUE, "another@1")

        await eventually(lambda: len(taken.held) == 6)


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_changes_the_room_is_kept_to_and_everything_is_served(seed: int) -> None:
    chance = random.Random(seed)
    async with a_session(orders=200, room=16) as taken:
        room, served = 16, 0
        while served < 200:
            if chance.random() < 0.1:
                held, room = len(taken.held), chance.randint(1, 16)
                await taken.change(room)
                await _settle()
                assert len(taken.held) <= max(held, room)
            await eventually(lambda: taken.held)
            await taken.finish(chance.randrange(len(taken.held)))
            served += 1
            await _settle()
            assert len(taken.held) <= 16

    assert len(taken.intakes) < 80  # Two or three for each change, and not one for each command.


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
