"""What the adapter for RabbitMQ does beyond the contract: failures, limits, and what people see in the broker."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest

from aiki.adapters.broker.rabbitmq import (
    RabbitBroker,
    apply_topology,
    check_topology,
    inspect_broker,
)
from aiki.engine.commands import AnnounceOutcome, ArmTimer, Command, SendEvent
from aiki.engine.events import RunRequested, TimerFired
from aiki.engine.payload import NULL
from aiki.engine.queries import GetRun, QueryFailed, RunFound
from aiki.engine.retry import RETRY_GRID_MS
from aiki.engine.state import Pair
from aiki.errors import (
    BrokerUnavailableError,
    DeliveryLostError,
    InvalidNameError,
    PublishUncertainError,
    UnroutableError,
)
from aiki.testing.builders import T0
from aiki.testing.contracts.broker_parts.system import (
    AT,
    PATIENCE,
    bodies_of,
    collect,
    dead_letter,
    execute_run,
    outcome,
    progress,
    run_in,
    signal,
)
from aiki.testing.servers import Rabbit, free_port
from tests.adapters.rabbit_system import PARTITIONS, RabbitSystem

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMANDS = "contract@1"


@pytest.fixture
async def system(amqp_url: str) -> AsyncIterator[RabbitSystem]:
    system = RabbitSystem(amqp_url)
    yield system
    await system.close()


@pytest.fixture
async def plain(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel past the adapter: what is there, as others see it."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel(on_return_raises=True)


async def taken_from(
    channel: aio_pika.abc.AbstractChannel, queue: str, number: int = 1
) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Take messages as they are. (``basic.get`` does not work on queues with a single active consumer.)"""
    taken: list[aio_pika.abc.AbstractIncomingMessage] = []
    async with asyncio.timeout(PATIENCE), (await channel.get_queue(queue)).iterator(no_ack=True) as messages:
        async for message in messages:
            taken.append(message)
            if len(taken) == number:
                break
    return taken


def requested(number: int) -> RunRequested:
    return RunRequested(
        id=f"event-{number}",
        run_id="run-1",
        at=AT,
        incarnation="first",
        workflow="contract",
        version="1",
        queue=COMMANDS,
        input=NULL,
        input_hash="0",
        trace=TRACE,
    )


class TestMessages:
    async def test_a_message_of_an_event_says_what_it_is_and_survives_a_restart(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()

        await broker.publish_events(0, [requested(1)], timeout=PATIENCE)

        (message,) = await taken_from(plain, "aiki.events.0")
        assert message.type == "RunRequested"
        assert message.correlation_id == "run-1"
        assert message.app_id == "aiki"
        assert message.content_type == "application/json"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.headers["traceparent"] == TRACE
        assert message.message_id
        assert message.timestamp is not None

    async def test_a_message_of_many_runs_names_none(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()

        await broker.publish_events(0, [signal(1, run_id="run-1"), signal(2, run_id="run-2")], timeout=PATIENCE)

        (message,) = await taken_from(plain, "aiki.events.0")
        assert message.type == "Events"
        assert message.correlation_id is None

    async def test_each_message_has_an_id_of_its_own(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()

        for _ in range(2):
            await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        one, two = await taken_from(plain, "aiki.events.0", 2)
        assert one.message_id != two.message_id

    async def test_names_that_are_too_long_for_a_property_or_a_key_hold_nothing_up(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        long = "x" * 300
        notice = AnnounceOutcome(
            client=long,
            run_id=long,
            workflow=long,
            version="1",
            status=outcome("run-1").status,
            input_hash="0",
            at=AT,
        )
        subscription = await broker.consume_notices("client-1")

        await broker.publish_events(0, [signal(1, run_id=long)], timeout=PATIENCE)
        await broker.send([notice, outcome("run-1", client="client-1")], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [outcome("run-1", client="client-1")]


class TestMissingQueues:
    async def test_among_many_commands_those_without_a_queue_make_it_and_each_arrives_once(
        self, system: RabbitSystem
    ) -> None:
        broker = await system.connect()
        queues = [f"wide-{number}@1" for number in range(5)]
        commands: list[Command] = [execute_run(number, queue=queues[number % 5]) for number in range(1200)]

        await broker.send(commands, timeout=PATIENCE)

        subscription = await broker.consume_commands(queues, prefetch=1000)
        taken: list[str] = []
        while len(taken) < 1200:
            arrived = await collect(subscription, 1)
            taken += [delivery.body.run_id for delivery in arrived]
            await subscription.acknowledge(arrived)
        assert sorted(taken) == sorted(f"run-{number}" for number in range(1200))

    async def test_a_partition_whose_binding_somebody_removed_gets_it_back(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        queue = await plain.get_queue("aiki.events.0")
        await queue.unbind("aiki.events", "0")

        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        assert bodies_of(await collect(await broker.consume_events(0, prefetch=1), 1)) == [(signal(1),)]

    async def test_an_exchange_that_somebody_deleted_comes_back_and_other_subscriptions_go_on(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        commands = await broker.consume_commands([COMMANDS], prefetch=10)
        await plain.exchange_delete("aiki.events")

        with pytest.raises(PublishUncertainError):
            await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        await broker.publish_events(0, [signal(2)], timeout=PATIENCE)
        await broker.send([execute_run(1, queue=COMMANDS)], timeout=PATIENCE)
        assert bodies_of(await collect(commands, 1)) == [execute_run(1, queue=COMMANDS)]

    async def test_a_retry_queue_that_somebody_deleted_is_made_again(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        run_id = run_in(0, partitions=PARTITIONS)
        subscription = await broker.consume_events(0, prefetch=10)
        timer = ArmTimer(event=signal(1, run_id=run_id), delay_ms=RETRY_GRID_MS[0])
        await broker.send([timer], timeout=PATIENCE)
        await collect(subscription, 1)
        await plain.queue_delete(f"aiki.retry.{RETRY_GRID_MS[0]}")

        await broker.send([timer], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1, run_id=run_id),)]

    async def test_a_subscription_whose_queue_is_deleted_is_lost_and_the_next_one_makes_it(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)

        await plain.queue_delete("aiki.events.0")

        with pytest.raises(DeliveryLostError, match=r"aiki\.events\.0"):
            await collect(subscription, 1)
        again = await broker.consume_events(0, prefetch=10)
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
        assert bodies_of(await collect(again, 1)) == [(signal(1),)]

    async def test_a_command_for_a_queue_that_cannot_exist_becomes_a_dead_letter_and_others_go_on(
        self, system: RabbitSystem
    ) -> None:
        broker = await system.connect()
        subscription = await broker.consume_commands([COMMANDS], prefetch=10)

        await broker.send(
            [execute_run(1, queue="aiki.events.0"), execute_run(2, queue="x" * 300), execute_run(3, queue=COMMANDS)],
            timeout=PATIENCE,
        )

        assert bodies_of(await collect(subscription, 1)) == [execute_run(3, queue=COMMANDS)]
        one, two = await collect(await broker.consume_dead_letters(prefetch=10), 2)
        assert {one.body.run_id, two.body.run_id} == {"run-1", "run-2"}
        assert one.body.reason == "undeliverable"
        assert one.body.workflow == "contract"

    async def test_redelivering_to_a_place_that_cannot_exist_is_refused(self, system: RabbitSystem) -> None:
        broker = await system.connect()

        with pytest.raises(UnroutableError):
            await broker.redeliver(dead_letter(1, origin="aiki.control.gone"), timeout=PATIENCE)
        with pytest.raises(UnroutableError):
            await broker.redeliver(dead_letter(1, origin="no queue"), timeout=PATIENCE)

    async def test_names_that_no_queue_can_have_are_refused_where_they_are_given(self, system: RabbitSystem) -> None:
        broker = await system.connect()

        with pytest.raises(InvalidNameError):
            await broker.consume_commands(["aiki.events.0"], prefetch=1)
        with pytest.raises(InvalidNameError):
            await broker.consume_control("a worker")
        with pytest.raises(InvalidNameError):
            await broker.consume_notices("#")
        with pytest.raises(InvalidNameError):
            await (await broker.consume_notices("client-1")).watch("run-1.*")


class TestLosingConnections:
    async def test_nothing_confirmed_is_lost_and_nothing_unsent_arrives_when_the_broker_closes_connections(
        self, system: RabbitSystem
    ) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        confirmed: set[str] = set()
        unsent: set[str] = set()

        async def publish(number: int) -> None:
            try:
                await publisher.publish_events(number % PARTITIONS, [signal(number)], timeout=PATIENCE)
            except PublishUncertainError:
                return
            except BrokerUnavailableError:
                unsent.add(f"event-{number}")
            else:
                confirmed.add(f"event-{number}")

        for start in range(0, 2000, 400):
            window = [asyncio.create_task(publish(number)) for number in range(start, start + 400)]
            await asyncio.sleep(0.01)
            await system.cut(publisher)
            await asyncio.gather(*window)

        taken: set[str] = set()
        for partition in range(PARTITIONS):
            await consumer.publish_events(partition, [signal(9000 + partition)], timeout=PATIENCE)
            subscription = await consumer.consume_events(partition, prefetch=500)
            while f"event-{9000 + partition}" not in taken:
                arrived = await collect(subscription, 1)
                taken |= {event.id for delivery in arrived for event in delivery.body}
                await subscription.acknowledge(arrived)
        assert confirmed
        assert confirmed <= taken
        assert not unsent & taken

    async def test_what_arrived_and_was_not_confirmed_is_uncertain_and_not_sent_again(
        self, system: RabbitSystem
    ) -> None:
        publisher, consumer = await system.connect(), await system.connect()
        subscription = await consumer.consume_events(0, prefetch=500)
        system.mute(publisher, is_mute=True)
        publishing = asyncio.create_task(publisher.publish_events(0, [signal(1)], timeout=PATIENCE))
        arrived = await collect(subscription, 1)

        await system.cut(publisher)
        system.mute(publisher, is_mute=False)

        with pytest.raises(PublishUncertainError):
            await publishing
        await publisher.publish_events(0, [signal(2)], timeout=PATIENCE)
        arrived += await collect(subscription, 1)
        assert bodies_of(arrived) == [(signal(1),), (signal(2),)]

    async def test_acknowledgements_right_before_closing_arrive(self, system: RabbitSystem) -> None:
        first, second = await system.connect(), await system.connect()
        subscription = await first.consume_events(0, prefetch=500)
        for number in range(200):
            await first.publish_events(0, [signal(number)], timeout=PATIENCE)
        deliveries = await collect(subscription, 200)

        await subscription.acknowledge(deliveries[:199])
        await first.close()

        (delivery,) = await collect(await second.consume_events(0, prefetch=500), 1)
        assert delivery.body == deliveries[199].body

    async def test_whoever_gives_up_waiting_for_the_broker_takes_nothing_down_with_them(
        self, system: RabbitSystem
    ) -> None:
        broker = await system.connect()
        notices = await broker.consume_notices("client-1")

        for number in range(20):
            watching = asyncio.create_task(notices.watch(f"run-{number}"))
            publishing = asyncio.create_task(broker.publish_events(0, [signal(number)], timeout=PATIENCE))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            watching.cancel()
            publishing.cancel()
            await asyncio.gather(watching, publishing, return_exceptions=True)

        await notices.watch("run-x")
        await broker.send([progress("run-x")], timeout=PATIENCE)
        assert bodies_of(await collect(notices, 1)) == [progress("run-x")]

    async def test_a_subscription_that_nobody_waits_for_any_more_holds_nothing(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        for turns in range(0, 60, 3):
            subscribing = asyncio.create_task(broker.consume_events(0, prefetch=10))
            for _ in range(turns):
                await asyncio.sleep(0)
            subscribing.cancel()
            try:
                await (await subscribing).close()  # It was there before it could be given up.
            except asyncio.CancelledError:
                continue

        assert bodies_of(await collect(await broker.consume_events(0, prefetch=10), 1)) == [(signal(1),)]

    async def test_a_query_whose_connection_is_lost_ends_at_once(self, system: RabbitSystem) -> None:
        client, orchestrator = await system.connect(), await system.connect()
        requests = await orchestrator.consume_queries(prefetch=10)
        asking = asyncio.create_task(client.ask(GetRun(run_id="run-1"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)

        await system.cut(client)

        with pytest.raises(BrokerUnavailableError):
            await asking
        await orchestrator.answer(delivery.body, RunFound(run=None))

    async def test_an_answer_that_is_too_large_says_so(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        requests = await broker.consume_queries(prefetch=10)
        asking = asyncio.create_task(broker.ask(GetRun(run_id="run-1"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)

        await broker.answer(delivery.body, QueryFailed(reason="x" * 9_000_000))

        answer = await asking
        assert isinstance(answer, QueryFailed)
        assert "bytes" in answer.reason

    async def test_a_query_that_says_not_where_its_answer_goes_is_parked(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        await broker.consume_queries(prefetch=10)

        body = b'{"v":1,"query":{"type":"GetRun","run_id":"run-1"}}'
        await plain.default_exchange.publish(aio_pika.Message(body), "aiki.queries")

        (delivery,) = await collect(await broker.consume_dead_letters(prefetch=10), 1)
        assert delivery.body.reason == "no_reply_to"


class TestDeadLetters:
    async def test_what_the_broker_itself_gives_up_is_a_letter_that_says_where_and_why(
        self, system: RabbitSystem, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        broker = await system.connect()
        await broker.send([execute_run(1, queue=COMMANDS)], timeout=PATIENCE)
        message = await (await plain.get_queue(COMMANDS)).get(timeout=PATIENCE)
        assert message is not None

        await message.reject(requeue=False)

        (delivery,) = await collect(await broker.consume_dead_letters(prefetch=10), 1)
        assert delivery.body.origin == COMMANDS
        assert delivery.body.reason == "rejected"
        assert "run-1" in delivery.body.body


class TestSeveralQueues:
    async def test_a_busy_queue_gets_what_idle_ones_do_not_use(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        queues = [f"share-{number}@1" for number in range(4)]
        subscription = await broker.consume_commands(queues, prefetch=40)

        await broker.send([execute_run(number, queue=queues[0]) for number in range(60)], timeout=PATIENCE)

        # Thirty-seven: each of the other three keeps one place for what may come.
        held = await collect(subscription, 37)
        assert len(held) <= 40

    async def test_queues_take_turns_when_there_are_more_than_places(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        queues = [f"turn-{number}@1" for number in range(4)]
        subscription = await broker.consume_commands(queues, prefetch=1)
        await broker.send([execute_run(number, queue=queues[0]) for number in range(500)], timeout=PATIENCE)
        await broker.send([execute_run(1000, queue=queues[3])], timeout=PATIENCE)

        taken: list[str] = []
        while "run-1000" not in taken:
            (delivery,) = await collect(subscription, 1)
            taken.append(delivery.body.run_id)
            await subscription.acknowledge([delivery])

        assert len(taken) < 500

    async def test_stopping_takes_nothing_more_from_any_queue_and_keeps_what_is_held(
        self, system: RabbitSystem
    ) -> None:
        leaver, stayer = await system.connect(), await system.connect()
        queues = [f"stop-{number}@1" for number in range(3)]
        leaving = await leaver.consume_commands(queues, prefetch=9)
        await leaver.send([execute_run(number, queue=queues[0]) for number in range(5)], timeout=PATIENCE)
        held = await collect(leaving, 5)

        await leaving.stop()
        await stayer.send([execute_run(number, queue=queues[1]) for number in range(5, 8)], timeout=PATIENCE)

        staying = await stayer.consume_commands(queues, prefetch=9)
        assert {one.body.run_id for one in await collect(staying, 3)} == {"run-5", "run-6", "run-7"}
        await leaving.acknowledge(held)
        await leaver.close()
        await staying.close()
        found = await inspect_broker(str(system.url), queues)
        assert found.missing == ()


async def test_timers_that_are_due_together_leave_as_one_message_for_each_partition(system: RabbitSystem) -> None:
    broker = await system.connect()
    subscriptions = [await broker.consume_events(number, prefetch=100) for number in range(PARTITIONS)]
    timers = [
        TimerFired(id=f"timer-{n}", run_id=f"run-{n}", at=T0, incarnation="i", pair=Pair(1, "d"), due_at=T0)
        for n in range(50)
    ]
    after = signal(1, run_id=run_in(0, partitions=PARTITIONS))

    await broker.send([SendEvent(event=event) for event in (*timers, after)], timeout=PATIENCE)

    arrived = [await collect(subscription, 1 + (number == 0)) for number, subscription in enumerate(subscriptions)]
    events = [event for deliveries in arrived for message in bodies_of(deliveries) for event in message]
    assert sorted(event.id for event in events) == sorted(event.id for event in (*timers, after))
    assert sum(map(len, arrived)) == PARTITIONS + 1
    fired = [[event.id for event in message if event in timers] for d in arrived for message in bodies_of(d)]
    assert all(ids == sorted(ids, key=lambda name: int(name.split("-")[1])) for ids in fired)


class TestStarting:
    async def refused(self, url: str) -> BrokerUnavailableError:
        broker = RabbitBroker(url, connect_timeout=1.0)
        with pytest.raises(BrokerUnavailableError) as caught:
            await broker.start()
        await broker.close()
        return caught.value

    async def test_a_wrong_password_is_named_and_not_shown(self, rabbit: Rabbit) -> None:
        error = await self.refused(rabbit.url_of("/").replace("guest:guest", "guest:secret-word"))

        assert "password" in str(error)
        assert "secret-word" not in str(error)

    async def test_a_missing_virtual_host_is_named(self, rabbit: Rabbit) -> None:
        error = await self.refused(rabbit.url_of("no-such-host"))

        assert "virtual host" in str(error)

    async def test_a_port_where_nobody_listens_is_named(self) -> None:
        port = free_port()

        error = await self.refused(f"amqp://guest:guest@127.0.0.1:{port}/")

        assert str(port) in str(error)
        assert "running" in str(error)

    @pytest.mark.parametrize("url", ["", "localhost", "http://localhost/", "amqp://", "amqp://host:port/", "//x"])
    async def test_what_is_no_address_is_refused(self, url: str) -> None:
        await self.refused(url)

    async def test_a_server_that_says_nothing_is_not_waited_for(self) -> None:
        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        async with server:
            error = await self.refused(f"amqp://guest:guest@127.0.0.1:{server.sockets[0].getsockname()[1]}/")

        assert "nothing answers" in str(error)

    async def test_a_server_that_is_no_rabbitmq_is_refused(self) -> None:
        async def say_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(say_http, "127.0.0.1", 0)
        async with server:
            await self.refused(f"amqp://guest:guest@127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    async def test_of_several_addresses_one_that_answers_is_enough(self, amqp_url: str) -> None:
        broker = RabbitBroker(f"amqp://guest:guest@127.0.0.1:{free_port()}/, {amqp_url}", partitions=2)

        await broker.start()

        assert broker.is_connected
        assert broker.server_version is not None
        assert broker.server_version >= (3, 10)
        await broker.close()

    async def test_a_broker_that_was_never_started_refuses_everything(self, amqp_url: str) -> None:
        broker = RabbitBroker(amqp_url)

        with pytest.raises(BrokerUnavailableError):
            await broker.publish_events(0, [signal(1)], timeout=PATIENCE)
        with pytest.raises(BrokerUnavailableError):
            await broker.consume_events(0, prefetch=1)
        await broker.close()
        with pytest.raises(BrokerUnavailableError):
            await broker.start()


class TestOperators:
    async def test_a_topology_that_was_applied_differs_in_nothing(self, amqp_url: str) -> None:
        assert "queue aiki.events.1 is missing" in await check_topology(amqp_url, partitions=2)

        await apply_topology(amqp_url, partitions=2)

        assert await check_topology(amqp_url, partitions=2) == []
        assert await check_topology(amqp_url, partitions=3) == ["queue aiki.events.2 is missing"]

    async def test_a_queue_that_was_declared_otherwise_is_reported(
        self, amqp_url: str, plain: aio_pika.abc.AbstractChannel
    ) -> None:
        await plain.declare_queue("aiki.events.0", durable=True)
        await plain.declare_exchange("aiki.notices", "fanout", durable=True)

        found = await check_topology(amqp_url, partitions=1)

        assert any(line.startswith("queue aiki.events.0 differs: ") and "x-dead" in line for line in found)
        assert any(line.startswith("exchange aiki.notices differs: ") and "fanout" in line for line in found)

    async def test_queues_are_looked_at(self, system: RabbitSystem) -> None:
        broker = await system.connect()
        await broker.consume_queries(prefetch=1)

        report = await inspect_broker(str(system.url), ["aiki.queries", "nowhere@1"])

        assert report.missing == ("nowhere@1",)
        (found,) = report.queues
        assert (found.name, found.messages, found.consumers) == ("aiki.queries", 0, 1)
