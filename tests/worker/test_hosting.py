"""What a worker is for the execution of one run: a voice that falls silent when the run is abandoned."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.commands import ExecuteRun
from aiki.engine.events import RunStarted
from aiki.engine.payload import NULL
from aiki.engine.queries import Answer, GetJournal, JournalPage, QueryFailed
from aiki.engine.state import Pair
from aiki.errors import RunAbandonedError
from aiki.sdk.run import Run
from aiki.sdk.workflow import workflow
from aiki.testing.builders import T0
from aiki.worker.hosting import RunHost
from aiki.worker.service import Worker
from tests.sdk.support import SOON, Engine, an_engine, eventually, published


@workflow
async def greet(run: Run) -> None: ...


COMMAND = ExecuteRun(
    queue="greet@1.0.0",
    run_id="run",
    incarnation="incarnation",
    pair=Pair(1, "dispatch"),
    workflow="greet",
    version="1.0.0",
    input=NULL,
    now=T0,
    created_at=T0,
)


def started(event_id: str) -> RunStarted:
    return RunStarted(id=event_id, run_id="run", at=T0, incarnation="incarnation", pair=COMMAND.pair, worker="worker")


@asynccontextmanager
async def a_host() -> AsyncIterator[tuple[Engine, RunHost]]:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client(timeout=0.05, listen=False)
        yield engine, RunHost(Worker(client, [greet])._surroundings, COMMAND)


async def answer_questions(broker: MemoryBroker, answers: list[Answer]) -> None:
    questions = await broker.consume_queries(prefetch=10)
    while answers:
        for delivery in await questions.receive():
            await broker.answer(delivery.body, answers.pop(0))
            await questions.acknowledge([delivery])
    await questions.close()


async def test_what_is_said_is_confirmed() -> None:
    async with a_host() as (engine, host):
        await asyncio.wait_for(host.publish([started("1"), started("2")]), SOON)

        assert [event.id for event in published(engine)] == ["1", "2"]


async def test_an_abandoned_run_says_nothing_more() -> None:
    async with a_host() as (engine, host):
        host.abandon()

        with pytest.raises(RunAbandonedError):
            await host.publish([started("1")])
        with pytest.raises(RunAbandonedError):
            await host.ask(GetJournal(run_id="run"))

        assert published(engine) == []


async def test_a_question_is_asked_until_it_is_answered() -> None:
    async with a_host() as (engine, host):
        asking = asyncio.create_task(host.ask(GetJournal(run_id="run")))
        await eventually(lambda: engine.hub.ready("aiki.queries"))
        await eventually(lambda: not engine.hub.ready("aiki.queries"))
        page = JournalPage(entries=())

        answering = asyncio.create_task(answer_questions(await engine.connected(), [QueryFailed(reason="away"), page]))

        assert await asyncio.wait_for(asking, SOON) == page
        await answering


async def test_a_question_ends_when_the_run_is_abandoned() -> None:
    async with a_host() as (engine, host):
        asking = asyncio.create_task(host.ask(GetJournal(run_id="run")))
        await eventually(lambda: engine.hub.ready("aiki.queries"))

        host.abandon()

        with pytest.raises(RunAbandonedError):
            await asyncio.wait_for(asking, SOON)
