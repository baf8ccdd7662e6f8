"""Notices: outcomes and progress, for the client that asked and for whoever watches."""

import asyncio

import pytest

from aiki.errors import DeliveryLostError
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    BrokerSystem,
    acceptance,
    bodies_of,
    collect,
    outcome,
    progress,
)

__all__ = ["NoticesContract"]


class NoticesContract:
    """What holds for the announcements of ``send`` and for ``consume_notices``."""

    async def test_a_client_hears_of_the_runs_that_it_started(self, system: BrokerSystem) -> None:
        orchestrator, one, two = [await system.connect() for _ in range(3)]
        to_one, to_two = await one.consume_notices("client-1"), await two.consume_notices("client-2")

        notices = [outcome("run-1", client="client-1"), outcome("run-2", client="client-2")]
        await orchestrator.send(notices, timeout=PATIENCE)

        assert bodies_of(await collect(to_one, 1)) == notices[:1]
        assert bodies_of(await collect(to_two, 1)) == notices[1:]

    async def test_a_client_hears_that_its_request_was_accepted(self, system: BrokerSystem) -> None:
        orchestrator, one, two = [await system.connect() for _ in range(3)]
        to_one, to_two = await one.consume_notices("client-1"), await two.consume_notices("client-2")

        notices = [acceptance("request-1", client="client-1"), acceptance("request-2", client="client-2")]
        await orchestrator.send(notices, timeout=PATIENCE)

        assert bodies_of(await collect(to_one, 1)) == notices[:1]
        assert bodies_of(await collect(to_two, 1)) == notices[1:]

    async def test_whoever_watches_a_run_hears_of_its_progress_and_its_outcome(self, system: BrokerSystem) -> None:
        orchestrator, one, two = [await system.connect() for _ in range(3)]
        subscriptions = [await one.consume_notices("client-1"), await two.consume_notices("client-2")]
        for subscription in subscriptions:
            await subscription.watch("run-1")

        await orchestrator.send([progress("run-0"), progress("run-1"), outcome("run-1")], timeout=PATIENCE)

        for subscription in subscriptions:
            assert bodies_of(await collect(subscription, 2)) == [progress("run-1"), outcome("run-1")]

    async def test_a_notice_comes_once_to_a_client_that_started_the_run_and_watches_it(
        self, system: BrokerSystem
    ) -> None:
        orchestrator, client = await system.connect(), await system.connect()
        subscription = await client.consume_notices("client-1")
        await subscription.watch("run-1")

        notices = [outcome("run-1", client="client-1"), outcome("run-2", client="client-1")]
        await orchestrator.send(notices, timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 2)) == notices

    async def test_whoever_stops_watching_hears_no_more_of_it(self, system: BrokerSystem) -> None:
        orchestrator, client = await system.connect(), await system.connect()
        subscription = await client.consume_notices("client-1")
        await subscription.watch("run-1")
        await subscription.watch("run-2")

        await subscription.unwatch("run-1")
        await orchestrator.send([outcome("run-1"), outcome("run-2")], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [outcome("run-2")]

    async def test_watching_twice_and_unwatching_what_is_not_watched_do_no_harm(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_notices("client-1")

        await subscription.watch("run-1")
        await subscription.watch("run-1")
        await subscription.unwatch("run-2")
        await broker.send([outcome("run-1"), outcome("run-2", client="client-1")], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 2)) == [outcome("run-1"), outcome("run-2", client="client-1")]

    async def test_what_is_announced_to_deaf_ears_is_no_error_and_not_kept(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        await broker.send([outcome("run-1", client="client-1"), progress("run-1")], timeout=PATIENCE)

        subscription = await broker.consume_notices("client-1")
        await broker.send([outcome("run-2", client="client-1")], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [outcome("run-2", client="client-1")]

    async def test_a_client_that_was_cut_off_knows_it_and_can_subscribe_again(self, system: BrokerSystem) -> None:
        orchestrator, client = await system.connect(), await system.connect()
        lost = await client.consume_notices("client-1")

        await system.cut(client)
        with pytest.raises(DeliveryLostError):
            await collect(lost, 1)
        with pytest.raises(DeliveryLostError):
            await lost.watch("run-1")

        async with asyncio.timeout(PATIENCE):
            subscription = await client.consume_notices("client-1")
        await orchestrator.send([outcome("run-1", client="client-1")], timeout=PATIENCE)
        assert bodies_of(await collect(subscription, 1)) == [outcome("run-1", client="client-1")]
