"""Events: kept once confirmed, in order, for one owner of a partition at a time."""

import asyncio
from collections import Counter

import pytest

from aiki.engine.commands import ArmTimer, SendEvent
from aiki.engine.events import Event
from aiki.engine.payload import Payload
from aiki.engine.retry import RETRY_GRID_MS
from aiki.errors import DeliveryLostError, PayloadTooLargeError, UnroutableError
from aiki.ports.broker import Broker, Delivery, Subscription
from aiki.testing.contracts.broker_parts.system import PATIENCE, BrokerSystem, bodies_of, collect, run_in, signal

__all__ = ["EventsContract"]


async def publish_each(broker: Broker, *numbers: int, partition: int = 0) -> None:
    """Publish events one by one, each in a message of its own."""
    for number in numbers:
        await broker.publish_events(partition, [signal(number)], timeout=PATIENCE)


def flags_of(deliveries: list[Delivery[tuple[Event, ...]]]) -> list[bool]:
    return [delivery.redelivered for delivery in deliveries]


class EventsContract:
    """What holds for ``publish_events`` and ``consume_events``."""

    async def test_events_published_together_are_delivered_together(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)

        await broker.publish_events(0, [signal(1), signal(2)], timeout=PATIENCE)

        (delivery,) = await collect(subscription, 1)
        assert delivery.body == (signal(1), signal(2))
        assert not delivery.redelivered

    async def test_what_was_published_before_anybody_subscribed_is_kept(self, system: BrokerSystem) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        await publish_each(publisher, 1, 2)
        await publisher.close()

        subscription = await consumer.consume_events(0, prefetch=10)

        assert bodies_of(await collect(subscription, 2)) == [(signal(1),), (signal(2),)]

    async def test_publishes_that_follow_each_other_arrive_in_that_order(self, system: BrokerSystem) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        subscription = await consumer.consume_events(0, prefetch=500)

        await publish_each(publisher, *range(100))

        assert bodies_of(await collect(subscription, 100)) == [(signal(number),) for number in range(100)]

    async def test_a_thousand_concurrent_publishes_lose_and_repeat_nothing(self, system: BrokerSystem) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        partitions = range(system.partitions)
        subscriptions = [await consumer.consume_events(number, prefetch=50) for number in partitions]

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                partition = number % system.partitions
                group.create_task(publisher.publish_events(partition, [signal(number)], timeout=PATIENCE))
            taking = [group.create_task(_take_share(one, 1000, system.partitions)) for one in subscriptions]

        taken = Counter(name for task in taking for name in task.result())
        assert taken == Counter(f"event-{number}" for number in range(1000))

    async def test_each_partition_has_its_own_events(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        zero = await broker.consume_events(0, prefetch=10)
        one = await broker.consume_events(1, prefetch=10)

        await publish_each(broker, 1, partition=1)
        await publish_each(broker, 0, partition=0)

        assert bodies_of(await collect(zero, 1)) == [(signal(0),)]
        assert bodies_of(await collect(one, 1)) == [(signal(1),)]

    async def test_a_partition_that_does_not_exist_is_refused(self, system: BrokerSystem) -> None:
        broker = await system.connect()

        with pytest.raises(UnroutableError):
            await broker.publish_events(system.partitions + 1, [signal(1)], timeout=PATIENCE)

    async def test_a_message_that_is_too_large_is_refused_and_others_go_on(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        huge = Payload('"' + "x" * 9_000_000 + '"')

        with pytest.raises(PayloadTooLargeError):
            await broker.publish_events(0, [signal(1, payload=huge)], timeout=PATIENCE)

        await publish_each(broker, 2)
        assert bodies_of(await collect(subscription, 1)) == [(signal(2),)]

    async def test_a_large_message_arrives_whole(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        large = Payload('"' + "ö" * 1_000_000 + '"')

        await broker.publish_events(0, [signal(1, payload=large)], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1, payload=large),)]

    async def test_only_the_one_that_waits_longest_gets_deliveries(self, system: BrokerSystem) -> None:
        brokers = [await system.connect() for _ in range(3)]
        first, second, third = [await broker.consume_events(0, prefetch=10) for broker in brokers]
        await publish_each(brokers[2], 1, 2, 3)

        # Had anybody else a share in them, the first would wait in vain for the third.
        assert bodies_of(await collect(first, 3)) == [(signal(1),), (signal(2),), (signal(3),)]

        await first.close()
        taken_over = await collect(second, 3)
        assert bodies_of(taken_over) == [(signal(1),), (signal(2),), (signal(3),)]
        assert flags_of(taken_over) == [True, True, True]

        await second.close()
        assert bodies_of(await collect(third, 3)) == [(signal(1),), (signal(2),), (signal(3),)]

    async def test_the_next_in_line_gets_what_was_not_acknowledged_and_then_the_rest(
        self, system: BrokerSystem
    ) -> None:
        owner, heir = await system.connect(), await system.connect()
        first = await owner.consume_events(0, prefetch=4)
        await publish_each(heir, 1, 2, 3, 4, 5, 6)
        held = await collect(first, 4)
        await first.acknowledge(held[:2])
        held += await collect(first, 2)
        second = await heir.consume_events(0, prefetch=10)

        await system.cut(owner)

        taken_over = await collect(second, 4)
        assert bodies_of(taken_over) == [(signal(3),), (signal(4),), (signal(5),), (signal(6),)]
        assert flags_of(taken_over) == [True, True, True, True]

    async def test_a_subscription_gets_no_more_than_it_may_hold(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=2)
        await publish_each(broker, 1, 2, 3, 4, 5)

        taken = await _take_with_at_most(2, subscription, 5)

        assert taken == [(signal(number),) for number in (1, 2, 3, 4, 5)]

    async def test_acknowledging_in_another_order_keeps_the_others(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        first = await broker.consume_events(0, prefetch=10)
        await publish_each(broker, 1, 2, 3, 4)
        one, two, three, four = await collect(first, 4)

        await first.acknowledge([three])
        await first.acknowledge([one])
        await first.close()

        second = await broker.consume_events(0, prefetch=10)
        assert bodies_of(await collect(second, 2)) == [two.body, four.body]

    async def test_whoever_stops_takes_nothing_more_and_can_still_acknowledge(self, system: BrokerSystem) -> None:
        leaver, heir = await system.connect(), await system.connect()
        first = await leaver.consume_events(0, prefetch=10)
        second = await heir.consume_events(0, prefetch=10)
        await publish_each(heir, 1)
        held = await collect(first, 1)

        await first.stop()
        await publish_each(heir, 2)

        assert bodies_of(await collect(second, 1)) == [(signal(2),)]
        await first.acknowledge(held)
        await first.close()
        await publish_each(heir, 3)
        assert bodies_of(await collect(second, 1)) == [(signal(3),)]

    async def test_a_closed_subscription_is_lost_for_whoever_waits_on_it(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        await publish_each(broker, 1)
        held = await collect(subscription, 1)
        waiting = asyncio.create_task(collect(subscription, 1))
        await asyncio.sleep(0)

        await subscription.close()
        await subscription.close()

        with pytest.raises(DeliveryLostError):
            await waiting
        with pytest.raises(DeliveryLostError):
            await subscription.receive()
        with pytest.raises(DeliveryLostError):
            await subscription.acknowledge(held)

    async def test_giving_up_waiting_loses_no_delivery(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        waiting = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        await publish_each(broker, 1)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]


class EventsOfTheEngineContract:
    """What holds for events that follow from decisions: ``SendEvent`` and ``ArmTimer``."""

    async def test_an_event_that_is_sent_goes_to_the_partition_of_its_run(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        run_id = run_in(1, partitions=system.partitions)
        subscription = await broker.consume_events(1, prefetch=10)

        await broker.send([SendEvent(event=signal(1, run_id=run_id))], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1, run_id=run_id),)]

    async def test_a_retry_comes_back_to_its_partition_and_not_before_its_delay(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        run_id = run_in(1, partitions=system.partitions)
        subscription = await broker.consume_events(1, prefetch=10)
        delay_ms = RETRY_GRID_MS[4]
        loop = asyncio.get_running_loop()

        armed_at = loop.time()
        await broker.send([ArmTimer(event=signal(1, run_id=run_id), delay_ms=delay_ms)], timeout=PATIENCE)
        (delivery,) = await collect(subscription, 1)

        # Both ends round to whole milliseconds.
        assert loop.time() - armed_at >= (delay_ms - 2) / 1000
        assert delivery.body == (signal(1, run_id=run_id),)
        assert not delivery.redelivered

    async def test_retries_with_one_delay_come_back_in_order(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        run_id = run_in(0, partitions=system.partitions)
        subscription = await broker.consume_events(0, prefetch=100)
        events = [signal(number, run_id=run_id) for number in range(30)]

        await broker.send([ArmTimer(event=one, delay_ms=RETRY_GRID_MS[0]) for one in events], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 30)) == [(event,) for event in events]

    async def test_a_long_delay_does_not_hold_up_a_short_one(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        run_id = run_in(0, partitions=system.partitions)
        subscription = await broker.consume_events(0, prefetch=10)
        late, early = signal(1, run_id=run_id), signal(2, run_id=run_id)

        # The queues of both delays are made by the first use; the second is what is timed.
        for _ in range(2):
            commands = [
                ArmTimer(event=late, delay_ms=RETRY_GRID_MS[16]),
                ArmTimer(event=early, delay_ms=RETRY_GRID_MS[0]),
            ]
            await broker.send(commands, timeout=PATIENCE)
            taken = await collect(subscription, 2)
            await subscription.acknowledge(taken)

        assert bodies_of(taken) == [(early,), (late,)]

    async def test_the_same_event_can_be_delayed_again_and_again(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        run_id = run_in(0, partitions=system.partitions)
        subscription = await broker.consume_events(0, prefetch=10)

        for _ in range(3):
            await broker.send([ArmTimer(event=signal(1, run_id=run_id), delay_ms=RETRY_GRID_MS[0])], timeout=PATIENCE)
            taken = await collect(subscription, 1)
            await subscription.acknowledge(taken)

            assert bodies_of(taken) == [(signal(1, run_id=run_id),)]


async def _take_share(subscription: Subscription[tuple[Event, ...]], total: int, partitions: int) -> list[str]:
    """Take and acknowledge what belongs to one partition of *total* events dealt out in turn."""
    first = await collect(subscription, 1)
    partition = int(first[0].body[0].id.removeprefix("event-")) % partitions
    expected = len(range(partition, total, partitions))
    taken = [delivery.body[0].id for delivery in first]
    await subscription.acknowledge(first)
    while len(taken) < expected:
        deliveries = await collect(subscription, 1)
        await subscription.acknowledge(deliveries)
        taken += [delivery.body[0].id for delivery in deliveries]
    return taken


async def _take_with_at_most(
    held_max: int, subscription: Subscription[tuple[Event, ...]], number: int
) -> list[tuple[Event, ...]]:
    """Take *number* deliveries, acknowledging one at a time, and check how many are held."""
    taken: list[Delivery[tuple[Event, ...]]] = []
    held: list[Delivery[tuple[Event, ...]]] = []
    while len(taken) < number:
        arrived = await collect(subscription, 1)
        taken += arrived
        held += arrived
        assert len(held) <= held_max
        await subscription.acknowledge([held.pop(0)])
    await subscription.acknowledge(held)
    return bodies_of(taken)
