"""What becomes of deliveries that RabbitMQ loses on their way, and what a silent subscription costs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from yarl import URL

from aiki.adapters.broker.rabbitmq import RabbitBroker
from aiki.adapters.broker.rabbitmq.silent import RenewedSubscription
from aiki.errors import DeliveryLostError
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    bodies_of,
    collect,
    execute_run,
    signal,
    until,
)
from tests.adapters.lossy_wire import CHANNEL_CLOSE, PUBLISH, LossyWire
from tests.adapters.rabbit_system import PARTITIONS, RabbitSystem

# So short that a test sees many silences.
SILENCE = 0.1
ONE, OTHER = "silent-one@1", "silent-other@1"


class Lossy:
    """Brokers of which each has a lossy wire, and that soon call it silence."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = URL(url)
        self._stack = stack

    async def connect(self) -> tuple[RabbitBroker, LossyWire]:
        """Start a broker."""
        wire = await LossyWire(self._url.port or 5672).start()
        self._stack.push_async_callback(wire.close)
        url = str(self._url.with_host("127.0.0.1").with_port(wire.port))
        broker = RabbitBroker(url, partitions=PARTITIONS, silence=SILENCE)
        self._stack.push_async_callback(broker.close)
        await broker.start()
        return broker, wire


@pytest.fixture
async def lossy(amqp_url: str) -> AsyncIterator[Lossy]:
    async with AsyncExitStack() as stack:
        yield Lossy(amqp_url, stack)


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


async def renewed(wire: LossyWire, subscription: object) -> None:
    """Wait until a *subscription*, just made or just used, has another channel."""
    assert isinstance(subscription, RenewedSubscription)
    closed = wire.methods[CHANNEL_CLOSE]
    await until(lambda: wire.methods[CHANNEL_CLOSE] > closed)


async def several_silences(lossy: Lossy) -> None:
    """Wait for as long as it takes others to fall silent, and to be renewed, three times."""
    broker, wire = await lossy.connect()
    for _ in range(3):
        subscription = await broker.consume_queries(prefetch=1)
        await renewed(wire, subscription)
        await subscription.close()
    await broker.close()


class TestPartitions:
    async def test_an_event_that_was_lost_on_its_way_arrives_after_a_silence(
        self, lossy: Lossy, system: RabbitSystem
    ) -> None:
        (broker, wire), publisher = await lossy.connect(), await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        wire.lose("event-1")

        await publisher.publish_events(0, [signal(1)], timeout=PATIENCE)

        (delivery,) = await collect(subscription, 1)
        assert wire.lost == 1
        assert delivery.body == (signal(1),)

    async def test_a_silence_moves_no_partition_and_shows_nobody_a_nudge(
        self, lossy: Lossy, system: RabbitSystem
    ) -> None:
        publisher, (owner, wire), (heir, other_wire) = (
            await system.connect(),
            await lossy.connect(),
            await lossy.connect(),
        )
        first, second = await owner.consume_events(0, prefetch=10), await heir.consume_events(0, prefetch=10)
        for number in range(1, 4):
            nudges = wire.methods[PUBLISH]
            await publisher.publish_events(0, [signal(number)], timeout=PATIENCE)
            held = await collect(first, 1)
            await first.acknowledge(held)
            await until(lambda nudges=nudges: wire.methods[PUBLISH] > nudges)  # type: ignore[misc]

            assert bodies_of(held) == [(signal(number),)]

        assert other_wire.methods[PUBLISH] <= 1
        await first.close()
        await publisher.publish_events(0, [signal(4)], timeout=PATIENCE)
        assert bodies_of(await collect(second, 1)) == [(signal(4),)]

    async def test_an_owner_to_whom_not_even_a_nudge_comes_lets_go(self, lossy: Lossy, system: RabbitSystem) -> None:
        (broker, wire), publisher = await lossy.connect(), await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        await publisher.publish_events(0, [signal(1)], timeout=PATIENCE)
        await subscription.acknowledge(await collect(subscription, 1))
        wire.lose_everything()

        with pytest.raises(DeliveryLostError, match="did not deliver"):
            await collect(subscription, 1)

        again = await (await system.connect()).consume_events(0, prefetch=10)
        await publisher.publish_events(0, [signal(2)], timeout=PATIENCE)
        assert bodies_of(await collect(again, 1)) == [(signal(2),)]


class TestOrders:
    @pytest.mark.parametrize("queues", [[ONE], [ONE, OTHER]], ids=["one queue", "queues that share a limit"])
    async def test_an_order_that_was_lost_on_its_way_arrives_after_a_silence(
        self, lossy: Lossy, system: RabbitSystem, queues: list[str]
    ) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands(queues, prefetch=10)
        wire.lose("run-1")

        await orderer.send([execute_run(1, queue=ONE)], timeout=PATIENCE)

        (delivery,) = await collect(subscription, 1)
        assert wire.lost == 1
        assert delivery.body == execute_run(1, queue=ONE)
        assert delivery.redelivered

    @pytest.mark.parametrize("queues", [[ONE], [ONE, OTHER]], ids=["one queue", "queues that share a limit"])
    async def test_what_is_held_is_not_disturbed_and_what_was_lost_comes_after_it(
        self, lossy: Lossy, system: RabbitSystem, queues: list[str]
    ) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands(queues, prefetch=10)
        await orderer.send([execute_run(1, queue=ONE)], timeout=PATIENCE)
        held = await collect(subscription, 1)
        closed = wire.methods[CHANNEL_CLOSE]
        wire.lose("run-2")
        await orderer.send([execute_run(2, queue=ONE)], timeout=PATIENCE)

        await several_silences(lossy)

        assert wire.lost == 1
        assert wire.methods[CHANNEL_CLOSE] == closed
        await subscription.acknowledge(held)
        (late,) = await collect(subscription, 1)
        assert late.body == execute_run(2, queue=ONE)
        await subscription.acknowledge([late])
        await orderer.send([execute_run(3, queue=ONE)], timeout=PATIENCE)
        assert bodies_of(await collect(subscription, 1)) == [execute_run(3, queue=ONE)]

    async def test_a_queue_goes_on_when_an_order_is_lost_while_another_queue_has_the_worker_busy(
        self, lossy: Lossy, system: RabbitSystem
    ) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands([ONE, OTHER], prefetch=2)
        await orderer.send([execute_run(1, queue=OTHER)], timeout=PATIENCE)
        held = await collect(subscription, 1)
        wire.lose("run-2")
        await orderer.send([execute_run(number, queue=ONE) for number in (2, 3)], timeout=PATIENCE)

        (next_one,) = await collect(subscription, 1)

        assert wire.lost == 1
        assert next_one.body == execute_run(3, queue=ONE)
        await subscription.acknowledge([next_one])
        await subscription.acknowledge(held)
        assert bodies_of(await collect(subscription, 1)) == [execute_run(2, queue=ONE)]

    async def test_what_was_acknowledged_before_a_renewal_acknowledges_nothing_that_came_after_it(
        self, lossy: Lossy, system: RabbitSystem
    ) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands([ONE], prefetch=10)
        await orderer.send([execute_run(1, queue=ONE)], timeout=PATIENCE)
        before = await collect(subscription, 1)
        await subscription.acknowledge(before)
        await renewed(wire, subscription)
        await orderer.send([execute_run(2, queue=ONE)], timeout=PATIENCE)
        await collect(subscription, 1)

        await subscription.acknowledge(before)
        await subscription.close()

        again = await orderer.consume_commands([ONE], prefetch=10)
        assert bodies_of(await collect(again, 1)) == [execute_run(2, queue=ONE)]

    @pytest.mark.parametrize("queues", [[ONE], [ONE, OTHER]], ids=["one queue", "queues that share a limit"])
    async def test_whoever_stops_during_a_renewal_takes_nothing_more(
        self, lossy: Lossy, system: RabbitSystem, queues: list[str]
    ) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands(queues, prefetch=10)
        async with asyncio.timeout(PATIENCE):
            await wire.hold(CHANNEL_CLOSE)

        stopping = asyncio.create_task(subscription.stop())
        await asyncio.sleep(0)  # It has begun.
        wire.go_on()
        await stopping

        heir = await orderer.consume_commands(queues, prefetch=1)
        for number in range(1, 4):
            await orderer.send([execute_run(number, queue=ONE)], timeout=PATIENCE)
            taken = await collect(heir, 1)
            await heir.acknowledge(taken)
            assert bodies_of(taken) == [execute_run(number, queue=ONE)]

    async def test_whoever_closes_during_a_renewal_is_rid_of_it(self, lossy: Lossy, system: RabbitSystem) -> None:
        (broker, wire), orderer = await lossy.connect(), await system.connect()
        subscription = await broker.consume_commands([ONE, OTHER], prefetch=10)
        async with asyncio.timeout(PATIENCE):
            await wire.hold(CHANNEL_CLOSE)

        closing = asyncio.create_task(subscription.close())
        await asyncio.sleep(0)  # It has begun.
        wire.go_on()
        await closing

        with pytest.raises(DeliveryLostError):
            await subscription.receive()
        await orderer.send([execute_run(1, queue=ONE)], timeout=PATIENCE)
        heir = await orderer.consume_commands([ONE], prefetch=1)
        assert bodies_of(await collect(heir, 1)) == [execute_run(1, queue=ONE)]


async def test_who_is_idle_says_nothing_after_the_first_silence(lossy: Lossy, system: RabbitSystem) -> None:
    (broker, wire), orderer = await lossy.connect(), await system.connect()
    partition = await broker.consume_events(0, prefetch=10)
    for queues in ([ONE], [ONE, OTHER]):
        await broker.consume_commands(queues, prefetch=10)
    await broker.consume_notices("client-1")
    await broker.consume_control("worker-1")
    await orderer.publish_events(0, [signal(1)], timeout=PATIENCE)
    await partition.acknowledge(await collect(partition, 1))
    await until(lambda: wire.methods[PUBLISH] > 0)
    await several_silences(lossy)
    said = wire.frames

    await several_silences(lossy)

    assert wire.frames == said
