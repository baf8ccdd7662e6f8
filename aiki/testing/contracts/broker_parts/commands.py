"""Commands: each to one of the workers that serve its queue, and back when that one is gone."""

import asyncio
import random

import pytest

from aiki.engine.commands import ExecuteTask, WorkerCommand
from aiki.engine.payload import NULL, Payload
from aiki.errors import BrokerUnavailableError, DeliveryLostError, PayloadTooLargeError
from aiki.ports.broker import Broker, Delivery
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    BrokerSystem,
    bodies_of,
    collect,
    execute_run,
    told,
)

__all__ = ["CommandsContract", "ControlContract"]

QUEUE = "contract@1"


class CommandsContract:
    """What holds for ``send`` of worker commands and ``consume_commands``."""

    async def test_a_command_reaches_a_worker_of_its_queue(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        subscription = await worker.consume_commands([QUEUE], prefetch=10)
        task = ExecuteTask(
            queue=QUEUE,
            run_id="run-2",
            incarnation="first",
            task_id="task-2",
            task="resize",
            operation="task:resize:0#1",
            attempt=1,
            input=NULL,
            idempotency_key="key",
        )

        await orchestrator.send([execute_run(1, queue=QUEUE), task], timeout=PATIENCE)

        deliveries = await collect(subscription, 2)
        assert bodies_of(deliveries) == [execute_run(1, queue=QUEUE), task]
        assert not any(delivery.redelivered for delivery in deliveries)

    async def test_a_command_whose_queue_is_missing_makes_it_and_waits_there(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        commands = [execute_run(number, queue="nobody-yet@1") for number in range(3)]

        await orchestrator.send(commands, timeout=PATIENCE)

        subscription = await worker.consume_commands(["nobody-yet@1"], prefetch=10)
        assert bodies_of(await collect(subscription, 3)) == commands

    async def test_each_command_goes_to_one_worker_and_never_more_than_it_may_hold(self, system: BrokerSystem) -> None:
        orchestrator, one, two = [await system.connect() for _ in range(3)]
        small = await one.consume_commands([QUEUE], prefetch=2)
        large = await two.consume_commands([QUEUE], prefetch=50)

        await orchestrator.send([execute_run(number, queue=QUEUE) for number in range(20)], timeout=PATIENCE)

        # The small one holds two and acknowledges none: all the others must have gone to the large one.
        held, others = await collect(small, 2), await collect(large, 18)
        assert len(held) == 2
        assert {one.body.run_id for one in held + others} == {f"run-{number}" for number in range(20)}

    async def test_what_a_subscription_may_hold_counts_over_all_its_queues(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        queues = ["contract-a@1", "contract-b@1", "contract-c@1"]
        subscription = await worker.consume_commands(queues, prefetch=2)
        commands = [execute_run(number, queue=queues[number % 3]) for number in range(9)]

        await orchestrator.send(commands, timeout=PATIENCE)

        taken: set[str] = set()
        held: list[Delivery[WorkerCommand]] = []
        while len(taken) < 9:
            arrived = await collect(subscription, 1)
            held += arrived
            taken |= {delivery.body.run_id for delivery in arrived}
            assert len(held) <= 2
            await subscription.acknowledge([held.pop(0)])

    async def test_many_may_acknowledge_at_the_same_time_in_any_order(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        subscription = await worker.consume_commands([QUEUE], prefetch=1000)
        await orchestrator.send([execute_run(number, queue=QUEUE) for number in range(1000)], timeout=PATIENCE)
        deliveries = await collect(subscription, 1000)
        random.Random(1).shuffle(deliveries)

        async def acknowledge(number: int) -> None:
            for _ in range(number // 20):
                await asyncio.sleep(0)  # So that some come while others still wait to be written.
            await subscription.acknowledge([deliveries[number]])

        await asyncio.gather(*(acknowledge(number) for number in range(1000)))

        await orchestrator.send([execute_run(1000, queue=QUEUE)], timeout=PATIENCE)
        [last] = await collect(subscription, 1)
        assert not last.redelivered
        await subscription.acknowledge([last])
        await subscription.close()
        again = await worker.consume_commands([QUEUE], prefetch=1000)
        await orchestrator.send([execute_run(1001, queue=QUEUE)], timeout=PATIENCE)
        assert bodies_of(await collect(again, 1)) == [execute_run(1001, queue=QUEUE)], "all the others were dealt with"

    async def test_the_commands_of_a_worker_that_is_cut_off_go_to_another_one_and_say_so(
        self, system: BrokerSystem
    ) -> None:
        orchestrator, first, second = [await system.connect() for _ in range(3)]
        lost = await first.consume_commands([QUEUE], prefetch=10)
        commands = [execute_run(number, queue=QUEUE) for number in range(3)]
        await orchestrator.send(commands, timeout=PATIENCE)
        held = await collect(lost, 3)
        await lost.acknowledge(held[:1])
        heir = await second.consume_commands([QUEUE], prefetch=10)

        await system.cut(first)

        taken_over = await collect(heir, 2)
        assert bodies_of(taken_over) == commands[1:]
        assert all(delivery.redelivered for delivery in taken_over)
        with pytest.raises(DeliveryLostError):
            await lost.receive()
        with pytest.raises(DeliveryLostError):
            await lost.acknowledge(held[1:])

    async def test_a_worker_that_was_cut_off_can_subscribe_again(self, system: BrokerSystem) -> None:
        worker = await system.connect()
        lost = await worker.consume_commands([QUEUE], prefetch=10)
        waiting = asyncio.create_task(collect(lost, 1))
        await asyncio.sleep(0)

        await system.cut(worker)
        with pytest.raises(DeliveryLostError):
            await waiting

        async with asyncio.timeout(PATIENCE):  # Waits for the connection that the broker makes by itself.
            subscription = await worker.consume_commands([QUEUE], prefetch=10)
        await worker.send([execute_run(1, queue=QUEUE)], timeout=PATIENCE)
        assert bodies_of(await collect(subscription, 1)) == [execute_run(1, queue=QUEUE)]

    async def test_a_worker_that_stops_finishes_what_it_has_and_others_get_the_rest(self, system: BrokerSystem) -> None:
        orchestrator, leaver, stayer = [await system.connect() for _ in range(3)]
        leaving = await leaver.consume_commands([QUEUE], prefetch=1)
        await orchestrator.send([execute_run(1, queue=QUEUE)], timeout=PATIENCE)
        held = await collect(leaving, 1)

        await leaving.stop()
        await leaving.acknowledge(held)
        await orchestrator.send([execute_run(2, queue=QUEUE)], timeout=PATIENCE)

        # Nobody consumes between the stop and the next subscription; the command waits for it, untouched.
        staying = await stayer.consume_commands([QUEUE], prefetch=10)
        (delivery,) = await collect(staying, 1)
        assert delivery.body == execute_run(2, queue=QUEUE)
        assert not delivery.redelivered

    async def test_one_command_that_is_too_large_keeps_its_whole_window_back(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_commands([QUEUE], prefetch=10)
        huge = ExecuteTask(
            queue=QUEUE,
            run_id="run-1",
            incarnation="first",
            task_id="task-1",
            task="resize",
            operation="task:resize:0#1",
            attempt=1,
            input=Payload('"' + "x" * 9_000_000 + '"'),
            idempotency_key="key",
        )

        with pytest.raises(PayloadTooLargeError):
            await broker.send([execute_run(1, queue=QUEUE), huge], timeout=PATIENCE)

        await broker.send([execute_run(2, queue=QUEUE)], timeout=PATIENCE)
        assert bodies_of(await collect(subscription, 1)) == [execute_run(2, queue=QUEUE)]

    async def test_the_backlog_is_what_waits_for_a_worker_with_room(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        assert await orchestrator.backlog(QUEUE, timeout=PATIENCE) is None

        await orchestrator.send([execute_run(number, queue=QUEUE) for number in range(3)], timeout=PATIENCE)
        await backlog_is(orchestrator, 3)

        subscription = await worker.consume_commands([QUEUE], prefetch=2)
        held = await collect(subscription, 2)
        await backlog_is(orchestrator, 1)

        await subscription.acknowledge(held)
        await collect(subscription, 1)
        await backlog_is(orchestrator, 0)

        await subscription.close()
        await backlog_is(orchestrator, 1)

    async def test_of_a_broker_that_is_away_no_backlog_can_be_told(self, system: BrokerSystem) -> None:
        orchestrator = await system.connect()
        await system.isolate(orchestrator)

        with pytest.raises(BrokerUnavailableError):
            await orchestrator.backlog(QUEUE, timeout=0.05)

        await system.rejoin(orchestrator)
        async with asyncio.timeout(PATIENCE):
            assert await orchestrator.backlog(QUEUE, timeout=PATIENCE) is None


async def backlog_is(broker: Broker, number: int) -> None:
    """Wait until the broker has counted anew."""
    async with asyncio.timeout(PATIENCE):
        while await broker.backlog(QUEUE, timeout=PATIENCE) != number:  # noqa: ASYNC110 - a count wakes nobody.
            await asyncio.sleep(0.01)


class ControlContract:
    """What holds for ``NotifyWorker`` and ``consume_control``."""

    async def test_a_worker_hears_what_is_said_to_it_alone(self, system: BrokerSystem) -> None:
        orchestrator, one, two = [await system.connect() for _ in range(3)]
        to_one = await one.consume_control("worker-1")
        to_two = await two.consume_control("worker-2")

        commands = [told("worker-1", "run-1"), told("worker-2", "run-2"), told("worker-1", "run-3")]
        await orchestrator.send(commands, timeout=PATIENCE)

        assert bodies_of(await collect(to_one, 2)) == [commands[0], commands[2]]
        assert bodies_of(await collect(to_two, 1)) == [commands[1]]

    async def test_what_is_said_to_a_worker_that_is_away_is_no_error_and_not_kept(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        await orchestrator.send([told("worker-1", "run-1")], timeout=PATIENCE)

        subscription = await worker.consume_control("worker-1")
        await orchestrator.send([told("worker-1", "run-2")], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [told("worker-1", "run-2")]

    async def test_a_worker_that_was_cut_off_can_listen_again_under_its_name(self, system: BrokerSystem) -> None:
        orchestrator, worker = await system.connect(), await system.connect()
        lost = await worker.consume_control("worker-1")

        await system.cut(worker)
        with pytest.raises(DeliveryLostError):
            await collect(lost, 1)

        async with asyncio.timeout(PATIENCE):
            subscription = await worker.consume_control("worker-1")
        await orchestrator.send([told("worker-1", "run-1")], timeout=PATIENCE)
        assert bodies_of(await collect(subscription, 1)) == [told("worker-1", "run-1")]
