"""The broker in memory: the contract, what embedded mode relies on, and what tests may do to it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.clock import SystemClock
from aiki.engine.commands import ArmTimer, ExecuteRun, NotifyWorker, SendEvent
from aiki.engine.events import Event
from aiki.engine.queries import GetRun, RunFound
from aiki.engine.retry import RETRY_GRID_MS
from aiki.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
    InvalidNameError,
    PayloadError,
    PublishUncertainError,
    QueryTimeoutError,
    UnroutableError,
)
from aiki.ports.broker import Subscription
from aiki.testing.clock import ManualClock
from aiki.testing.contracts.broker import BrokerContract
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    bodies_of,
    collect,
    dead_letter,
    execute_run,
    outcome,
    run_in,
    signal,
    told,
    until,
)
from tests.adapters.memory_system import MemorySystem

System = MemorySystem[MemoryBroker]


async def system_on(hub: MemoryHub) -> AsyncIterator[System]:
    system = MemorySystem(hub, lambda: MemoryBroker(hub))
    yield system
    await system.close()


class TestMemoryBroker(BrokerContract):
    """The contract."""

    @pytest.fixture
    async def system(self) -> AsyncIterator[System]:
        async for system in system_on(MemoryHub(clock=SystemClock(), partitions=4)):
            yield system


class TestRetries:
    """Delays go by the clock that the hub was given."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    async def system(self, clock: ManualClock) -> AsyncIterator[System]:
        async for system in system_on(MemoryHub(clock=clock)):
            yield system

    async def test_an_event_comes_back_when_the_clock_says_so(self, system: System, clock: ManualClock) -> None:
        broker = await system.connect()
        queue = "aiki.events.0"
        run_id = run_in(0, partitions=system.partitions)
        one, two = signal(1, run_id=run_id), signal(2, run_id=run_id)
        hour, minute = RETRY_GRID_MS[-1], RETRY_GRID_MS[0]

        await broker.send([ArmTimer(event=one, delay_ms=hour), ArmTimer(event=two, delay_ms=minute)], timeout=PATIENCE)

        assert system.hub.ready(queue) == ()
        await clock.advance(minute / 1000)
        assert system.hub.ready(queue) == ((two,),)
        await clock.advance((hour - minute - 1) / 1000)
        assert system.hub.ready(queue) == ((two,),)
        await clock.advance(0.001)
        assert system.hub.ready(queue) == ((two,), (one,))

    async def test_retries_wait_while_nobody_is_connected_and_move_on_afterwards(
        self, system: System, clock: ManualClock
    ) -> None:
        run_id = run_in(0, partitions=system.partitions)
        first = await system.connect()
        await first.send([ArmTimer(event=signal(1, run_id=run_id), delay_ms=RETRY_GRID_MS[0])], timeout=PATIENCE)
        await first.close()
        assert clock.sleepers == 0
        await clock.advance(1)

        second = await system.connect()

        subscription = await second.consume_events(0, prefetch=10)
        assert bodies_of(await collect(subscription, 1)) == [(signal(1, run_id=run_id),)]

    async def test_a_delay_off_the_grid_is_refused(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(ValueError, match="101 ms is not on the retry grid"):
            await broker.send([ArmTimer(event=signal(1), delay_ms=101)], timeout=PATIENCE)


class TestDurableConfirms:
    """In embedded mode, what is published is safe once it is stored: when its consumer has acknowledged it."""

    @pytest.fixture
    async def system(self) -> AsyncIterator[System]:
        async for system in system_on(MemoryHub(clock=SystemClock(), durable_confirms=True)):
            yield system

    async def test_a_publish_returns_when_it_was_acknowledged(self, system: System) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        publishing = asyncio.create_task(broker.publish_events(0, [signal(1)], timeout=PATIENCE))

        deliveries = await collect(subscription, 1)
        assert not publishing.done()
        await subscription.acknowledge(deliveries)

        await publishing

    async def test_a_publish_that_nobody_acknowledges_in_time_is_uncertain(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(PublishUncertainError):
            await broker.publish_events(0, [signal(1)], timeout=0.01)

        assert system.hub.ready("aiki.events.0") == ((signal(1),),)

    async def test_a_publish_under_way_is_uncertain_when_the_connection_is_lost(self, system: System) -> None:
        broker, other = await system.connect(), await system.connect()
        subscription = await other.consume_events(0, prefetch=10)
        publishing = asyncio.create_task(broker.publish_events(0, [signal(1)], timeout=3600))
        deliveries = await collect(subscription, 1)

        system.hub.disconnect(broker)

        with pytest.raises(PublishUncertainError):
            await asyncio.wait_for(publishing, PATIENCE)
        await subscription.acknowledge(deliveries)

    async def test_a_publish_waits_through_the_loss_of_its_consumer(self, system: System) -> None:
        broker, first, second = [await system.connect() for _ in range(3)]
        lost = await first.consume_events(0, prefetch=10)
        heir = await second.consume_events(0, prefetch=10)
        publishing = asyncio.create_task(broker.publish_events(0, [signal(1)], timeout=PATIENCE))
        await collect(lost, 1)

        system.hub.disconnect(first)
        deliveries = await collect(heir, 1)
        assert not publishing.done()
        await heir.acknowledge(deliveries)

        await publishing

    async def test_a_parked_letter_is_safe_when_it_was_acknowledged(self, system: System) -> None:
        broker = await system.connect()
        letters = await broker.consume_dead_letters(prefetch=10)
        parking = asyncio.create_task(broker.park(dead_letter(1), timeout=PATIENCE))

        deliveries = await collect(letters, 1)
        assert not parking.done()
        await letters.acknowledge(deliveries)

        await parking

    async def test_whoever_gives_orders_does_not_wait_for_them(self, system: System) -> None:
        broker = await system.connect()

        await broker.send([SendEvent(event=signal(1)), execute_run(1, queue="contract@1")], timeout=PATIENCE)

        assert system.hub.ready("contract@1") == (execute_run(1, queue="contract@1"),)


class TestHub:
    """What tests may do to a hub, and see in it."""

    @pytest.fixture
    async def system(self) -> AsyncIterator[System]:
        async for system in system_on(MemoryHub(clock=SystemClock())):
            yield system

    async def test_queues_show_what_waits_and_how_much_is_held(self, system: System) -> None:
        broker = await system.connect()
        for number in range(3):
            await broker.publish_events(0, [signal(number)], timeout=PATIENCE)
        assert system.hub.ready("aiki.events.0") == ((signal(0),), (signal(1),), (signal(2),))

        subscription = await broker.consume_events(0, prefetch=2)
        deliveries = await collect(subscription, 2)
        assert system.hub.ready("aiki.events.0") == ((signal(2),),)
        assert system.hub.held("aiki.events.0") == 2

        await subscription.acknowledge(deliveries)
        assert system.hub.held("aiki.events.0") == 1
        assert system.hub.ready("nobody@1") == ()
        assert system.hub.held("nobody@1") == 0

    async def test_what_two_subscribers_lose_comes_back_in_the_order_of_losing_it(self, system: System) -> None:
        one, two = await system.connect(), await system.connect()
        first = await one.consume_commands(["contract@1"], prefetch=2)
        second = await two.consume_commands(["contract@1"], prefetch=2)
        commands = [execute_run(number, queue="contract@1") for number in range(5)]
        await one.send(commands, timeout=PATIENCE)

        await second.close()
        await first.close()

        one_had, other_had = commands[0:4:2], commands[1:4:2]
        assert system.hub.ready("contract@1") == (*other_had, *one_had, commands[4])

    async def test_what_arrived_and_was_not_taken_is_lost_with_the_connection(self, system: System) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
        assert system.hub.held("aiki.events.0") == 1

        system.hub.disconnect(broker)

        with pytest.raises(DeliveryLostError):
            await subscription.receive()
        assert system.hub.ready("aiki.events.0") == ((signal(1),),)

    async def test_a_consumer_with_much_to_do_lets_others_have_their_turn(self, system: System) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=1)
        for number in range(10):
            await broker.publish_events(0, [signal(number)], timeout=PATIENCE)
        consuming = asyncio.create_task(self.take_all(subscription, 10))

        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert system.hub.ready("aiki.events.0")
        await consuming

    async def take_all(self, subscription: Subscription[tuple[Event, ...]], number: int) -> None:
        for _ in range(number):
            await subscription.acknowledge(await subscription.receive())

    async def test_thousands_of_unreadable_letters_are_all_kept(self, system: System) -> None:
        broker = await system.connect()
        for number in range(3000):
            system.hub.inject("aiki.dead-letters", b"%d" % number)

        letters = await collect(await broker.consume_dead_letters(prefetch=5000), 3000)

        assert {delivery.body.body for delivery in letters} == {str(number) for number in range(3000)}

    async def test_a_stopped_hub_keeps_its_queues_and_nobody_can_connect(self, system: System) -> None:
        broker, other = await system.connect(), MemoryBroker(system.hub)
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        system.hub.stop()

        assert not broker.is_connected
        with pytest.raises(BrokerUnavailableError):
            await other.start()
        with pytest.raises(BrokerUnavailableError):
            await broker.publish_events(0, [signal(2)], timeout=0.01)
        system.hub.start()
        await until(lambda: broker.is_connected)
        assert system.hub.ready("aiki.events.0") == ((signal(1),),)

    async def test_a_hub_can_lose_everything(self, system: System) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=1)
        for number in range(3):
            await broker.publish_events(0, [signal(number)], timeout=PATIENCE)
        await broker.send([execute_run(1, queue="contract@1")], timeout=PATIENCE)
        await broker.send([ArmTimer(event=signal(4), delay_ms=RETRY_GRID_MS[-1])], timeout=PATIENCE)
        await collect(subscription, 1)

        system.hub.lose_everything()
        system.hub.start()

        assert system.hub.ready("aiki.events.0") == ()
        assert system.hub.ready("contract@1") == ()
        assert system.hub.retries.waiting == 0

    async def test_bytes_can_be_injected_into_every_queue_that_there_is(self, system: System) -> None:
        broker = await system.connect()
        control = await broker.consume_control("worker-1")
        notices = await broker.consume_notices("client-1")

        system.hub.inject("aiki.control.worker-1", b"?")
        await broker.send([told("worker-1", "run-1"), outcome("run-1", client="client-1")], timeout=PATIENCE)

        (told_delivery,) = await collect(control, 1)
        assert isinstance(told_delivery.body, NotifyWorker)
        await collect(notices, 1)
        (letter,) = await collect(await broker.consume_dead_letters(prefetch=1), 1)
        assert letter.body.origin == "aiki.control.worker-1"

    @pytest.mark.parametrize("queue", ["aiki.events.8", "aiki.nonsense", "no spaces"])
    async def test_bytes_cannot_be_injected_where_nothing_is(self, system: System, queue: str) -> None:
        with pytest.raises(UnroutableError):
            system.hub.inject(queue, b"?")

    async def test_a_letter_from_nowhere_cannot_be_redelivered(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(UnroutableError):
            await broker.redeliver(dead_letter(1, origin="aiki.events.99"), timeout=PATIENCE)

    async def test_a_queue_whose_name_cannot_be_one_is_refused(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(InvalidNameError):
            await broker.consume_commands(["no spaces"], prefetch=1)

    async def test_a_value_that_could_not_be_written_is_refused_here_too(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(PayloadError):
            await broker.publish_events(0, [signal(1, run_id="\ud800")], timeout=PATIENCE)
        assert system.hub.ready("aiki.events.0") == ()

    async def test_a_query_that_nobody_took_in_time_does_not_stay(self, system: System) -> None:
        broker = await system.connect()

        with pytest.raises(QueryTimeoutError):
            await broker.ask(GetRun(run_id="run-1"), timeout=0.01)

        assert system.hub.ready("aiki.queries") == ()

    async def test_who_asks_and_is_cut_off_is_told_at_once(self, system: System) -> None:
        broker, orchestrator = await system.connect(), await system.connect()
        requests = await orchestrator.consume_queries(prefetch=10)
        asking = asyncio.create_task(broker.ask(GetRun(run_id="run-1"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)

        system.hub.disconnect(broker)

        with pytest.raises(BrokerUnavailableError):
            await asking
        await orchestrator.answer(delivery.body, RunFound(run=None))

    async def test_a_query_written_by_hand_is_answered_to_nobody(self, system: System) -> None:
        orchestrator = await system.connect()
        requests = await orchestrator.consume_queries(prefetch=10)

        system.hub.inject("aiki.queries", b'{"v":1,"query":{"type":"GetRun","run_id":"run-1"}}')

        (delivery,) = await collect(requests, 1)
        assert delivery.body.query == GetRun(run_id="run-1")
        await orchestrator.answer(delivery.body, RunFound(run=None))

    async def test_a_client_that_leaves_is_forgotten(self, system: System) -> None:
        broker = await system.connect()
        notices = await broker.consume_notices("client-1")
        await notices.watch("run-1")
        control = await broker.consume_control("worker-1")

        await notices.close()
        await control.close()

        assert system.hub.listeners == 0
        await broker.send([outcome("run-1", client="client-1"), told("worker-1", "run-1")], timeout=PATIENCE)
        with pytest.raises(DeliveryLostError):
            await notices.watch("run-2")
        with pytest.raises(DeliveryLostError):
            await control.receive()

    async def test_a_command_is_delivered_as_the_very_value_that_was_sent(self, system: System) -> None:
        broker = await system.connect()
        subscription = await broker.consume_commands(["contract@1"], prefetch=1)
        command: ExecuteRun = execute_run(1, queue="contract@1")

        await broker.send([command], timeout=PATIENCE)

        (delivery,) = await collect(subscription, 1)
        assert delivery.body is command
