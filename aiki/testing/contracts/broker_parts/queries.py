"""Queries: each to one orchestrator, each answer to whoever asked."""

import asyncio

import pytest

from aiki.engine.queries import GetJournal, GetRun, JournalPage, Query, QueryFailed, RunFound
from aiki.errors import QueryTimeoutError
from aiki.ports.broker import Broker, Request, Subscription
from aiki.testing.contracts.broker_parts.system import PATIENCE, BrokerSystem, collect

__all__ = ["QueriesContract"]


class QueriesContract:
    """What holds for ``ask``, ``consume_queries`` and ``answer``."""

    async def test_a_query_is_answered(self, system: BrokerSystem) -> None:
        client, orchestrator = await system.connect(), await system.connect()
        requests = await orchestrator.consume_queries(prefetch=10)
        asking = asyncio.create_task(client.ask(GetJournal(run_id="run-1", after_seq=7), timeout=PATIENCE))

        (delivery,) = await collect(requests, 1)
        assert delivery.body.query == GetJournal(run_id="run-1", after_seq=7)
        await orchestrator.answer(delivery.body, JournalPage(entries=(), complete=False))
        await requests.acknowledge([delivery])

        assert await asking == JournalPage(entries=(), complete=False)

    async def test_each_of_many_gets_its_own_answer_in_whatever_order(self, system: BrokerSystem) -> None:
        one, two, orchestrator = [await system.connect() for _ in range(3)]
        requests = await orchestrator.consume_queries(prefetch=50)
        asking = [asyncio.create_task(_ask_for(broker, number)) for number in range(10) for broker in (one, two)]

        deliveries = await collect(requests, 20)
        for delivery in reversed(deliveries):
            await orchestrator.answer(delivery.body, QueryFailed(reason=_run_of(delivery.body.query)))
        await requests.acknowledge(deliveries)

        assert all(await asyncio.gather(*asking))

    async def test_each_query_goes_to_one_orchestrator(self, system: BrokerSystem) -> None:
        client, one, two = [await system.connect() for _ in range(3)]
        answering = [
            asyncio.create_task(_answer_all(broker, await broker.consume_queries(prefetch=1))) for broker in (one, two)
        ]

        answers = await asyncio.gather(*(client.ask(GetRun(run_id="run-1"), timeout=PATIENCE) for _ in range(20)))

        assert answers == [RunFound(run=None)] * 20
        for task in answering:
            task.cancel()
        counts = await asyncio.gather(*answering)
        assert sum(counts) == 20

    async def test_without_an_orchestrator_asking_ends_with_the_timeout(self, system: BrokerSystem) -> None:
        client = await system.connect()

        with pytest.raises(QueryTimeoutError):
            await client.ask(GetRun(run_id="run-1"), timeout=0.1)

    async def test_an_answer_to_somebody_who_is_gone_is_no_error(self, system: BrokerSystem) -> None:
        client, orchestrator = await system.connect(), await system.connect()
        requests = await orchestrator.consume_queries(prefetch=10)
        asking = asyncio.create_task(client.ask(GetRun(run_id="run-1"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await client.close()

        await orchestrator.answer(delivery.body, RunFound(run=None))
        await requests.acknowledge([delivery])

        # The orchestrator goes on.
        another = await system.connect()
        asking = asyncio.create_task(another.ask(GetRun(run_id="run-2"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)
        await orchestrator.answer(delivery.body, RunFound(run=None))
        assert await asking == RunFound(run=None)


def _run_of(query: Query) -> str:
    assert isinstance(query, GetRun)
    return query.run_id


async def _ask_for(broker: Broker, number: int) -> bool:
    answer = await broker.ask(GetRun(run_id=f"run-{number}"), timeout=PATIENCE)
    return answer == QueryFailed(reason=f"run-{number}")


async def _answer_all(broker: Broker, requests: Subscription[Request]) -> int:
    """Answer until cancelled; tell how many were answered."""
    answered = 0
    try:
        while True:
            deliveries = await requests.receive()
            for delivery in deliveries:
                answered += 1
                await broker.answer(delivery.body, RunFound(run=None))
            await requests.acknowledge(deliveries)
    except asyncio.CancelledError:
        return answered
