"""The connection: it may be lost at any moment, comes back by itself, and its end is clean."""

import asyncio

import pytest

from aiki.engine.commands import SendEvent
from aiki.engine.queries import GetRun
from aiki.errors import BrokerUnavailableError, DeliveryLostError, PublishUncertainError
from aiki.ports.broker import Broker
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    BrokerSystem,
    bodies_of,
    collect,
    dead_letter,
    signal,
    until,
)

__all__ = ["ConnectionContract"]


class ConnectionContract:
    """What holds when connections are made, lost, made again and closed."""

    async def test_a_started_broker_is_connected_until_it_is_closed(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        assert broker.is_connected
        assert broker.partitions == system.partitions

        await broker.close()
        assert not broker.is_connected

    async def test_closing_twice_is_safe(self, system: BrokerSystem) -> None:
        broker = await system.connect()

        await broker.close()
        await broker.close()

    async def test_closing_ends_every_subscription_and_gives_back_what_it_held(self, system: BrokerSystem) -> None:
        leaver, stayer = await system.connect(), await system.connect()
        first = await leaver.consume_events(0, prefetch=10)
        notices = await leaver.consume_notices("client-1")
        await stayer.publish_events(0, [signal(1)], timeout=PATIENCE)
        await collect(first, 1)
        waiting = asyncio.create_task(notices.receive())
        await asyncio.sleep(0)

        await leaver.close()

        with pytest.raises(DeliveryLostError):
            await first.receive()
        with pytest.raises(DeliveryLostError):
            await waiting
        (delivery,) = await collect(await stayer.consume_events(0, prefetch=10), 1)
        assert delivery.body == (signal(1),)
        assert delivery.redelivered

    async def test_a_closed_broker_sends_nothing(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        await broker.close()

        with pytest.raises(BrokerUnavailableError):
            await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
        with pytest.raises(BrokerUnavailableError):
            await broker.send([SendEvent(event=signal(1))], timeout=PATIENCE)
        with pytest.raises(BrokerUnavailableError):
            await broker.ask(GetRun(run_id="run-1"), timeout=PATIENCE)
        with pytest.raises(BrokerUnavailableError):
            await broker.consume_events(0, prefetch=10)

    async def test_a_broker_that_was_cut_off_connects_again_by_itself(self, system: BrokerSystem) -> None:
        broker, other = await system.connect(), await system.connect()
        subscription = await other.consume_events(0, prefetch=10)

        for number in range(3):
            await system.cut(broker)
            await _publish_surely(broker, number)

        taken = await collect(subscription, 3)
        assert {signal(number) for number in range(3)} == {event for one in taken for event in one.body}
        await until(lambda: broker.is_connected)

    async def test_publishing_waits_for_a_connection(self, system: BrokerSystem) -> None:
        broker, other = await system.connect(), await system.connect()
        subscription = await other.consume_events(0, prefetch=10)
        await system.isolate(broker)
        await until(lambda: not broker.is_connected)
        publishing = asyncio.create_task(broker.publish_events(0, [signal(1)], timeout=PATIENCE))
        await asyncio.sleep(0)

        await system.rejoin(broker)

        await publishing
        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]

    async def test_without_a_connection_everything_ends_with_its_timeout_and_nothing_is_sent(
        self, system: BrokerSystem
    ) -> None:
        broker, other = await system.connect(), await system.connect()
        await system.isolate(broker)
        await until(lambda: not broker.is_connected)

        with pytest.raises(BrokerUnavailableError):
            await broker.publish_events(0, [signal(1)], timeout=0.05)
        with pytest.raises(BrokerUnavailableError):
            await broker.send([SendEvent(event=signal(1))], timeout=0.05)
        with pytest.raises(BrokerUnavailableError):
            await broker.park(dead_letter(1), timeout=0.05)
        with pytest.raises(BrokerUnavailableError):
            await broker.ask(GetRun(run_id="run-1"), timeout=0.05)

        await system.rejoin(broker)
        await _publish_surely(broker, 2)
        taken = await collect(await other.consume_events(0, prefetch=10), 1)
        assert bodies_of(taken) == [(signal(2),)]

    async def test_subscribing_waits_for_a_connection(self, system: BrokerSystem) -> None:
        broker, other = await system.connect(), await system.connect()
        await other.publish_events(0, [signal(1)], timeout=PATIENCE)
        await system.isolate(broker)
        await until(lambda: not broker.is_connected)
        subscribing = asyncio.create_task(broker.consume_events(0, prefetch=10))
        await asyncio.sleep(0)

        await system.rejoin(broker)

        async with asyncio.timeout(PATIENCE):
            subscription = await subscribing
        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]

    async def test_nothing_that_was_confirmed_is_lost_when_connections_are_cut(self, system: BrokerSystem) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        subscription = await consumer.consume_events(0, prefetch=500)

        publishing = asyncio.gather(*(_publish_surely(publisher, number) for number in range(200)))
        await asyncio.sleep(0)
        await system.cut(publisher)
        await publishing

        seen: set[str] = set()
        while len(seen) < 200:
            deliveries = await collect(subscription, 1)
            seen |= {event.id for delivery in deliveries for event in delivery.body}
            await subscription.acknowledge(deliveries)


async def _publish_surely(broker: Broker, number: int) -> None:
    """Publish an event, again and again until it is confirmed."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await broker.publish_events(0, [signal(number)], timeout=PATIENCE)
            except (BrokerUnavailableError, PublishUncertainError):
                continue
            return
