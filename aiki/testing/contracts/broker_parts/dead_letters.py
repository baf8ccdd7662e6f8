"""Dead letters: what nobody could read or survive is kept, says why, and holds nothing else up."""

import json

import pytest

from aiki.codec.messages import encode_command, encode_events
from aiki.engine.commands import ParkDeadLetter
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    BrokerSystem,
    bodies_of,
    collect,
    dead_letter,
    execute_run,
    signal,
)

__all__ = ["DeadLettersContract"]

QUEUE = "contract@1"

UNREADABLE = [
    (b"", "broken_json"),
    (b"\xff\xfe", "broken_json"),
    (b'{"v":1,', "broken_json"),
    (b'{"v":2}', "unknown_version"),
    (b'{"v":1,"events":[{"type":"RunExploded"}],"command":{"type":"RunExploded"}}', "unknown_type"),
    (b'{"v":1,"surprise":1}', "wrong_content"),
    (b"x" * 9_000_000, "too_large"),
]
unreadable = pytest.mark.parametrize(
    ("body", "reason"), UNREADABLE, ids=[f"{reason}-{len(body)}" for body, reason in UNREADABLE]
)


class DeadLettersContract:
    """What holds for dead letters: parked, made of what is unreadable, consumed and redelivered."""

    async def test_a_letter_that_a_worker_parks_is_kept_until_somebody_takes_it(self, system: BrokerSystem) -> None:
        worker, orchestrator = await system.connect(), await system.connect()
        await worker.park(dead_letter(1), timeout=PATIENCE)
        await worker.close()

        letters = await orchestrator.consume_dead_letters(prefetch=10)

        assert bodies_of(await collect(letters, 1)) == [dead_letter(1)]

    async def test_a_letter_that_a_decision_parks_is_kept(self, system: BrokerSystem) -> None:
        broker = await system.connect()

        await broker.send(
            [ParkDeadLetter(letter=dead_letter(1)), ParkDeadLetter(letter=dead_letter(2))], timeout=PATIENCE
        )

        letters = await broker.consume_dead_letters(prefetch=10)
        assert bodies_of(await collect(letters, 2)) == [dead_letter(1), dead_letter(2)]

    async def test_a_letter_that_was_not_acknowledged_comes_again(self, system: BrokerSystem) -> None:
        broker, other = await system.connect(), await system.connect()
        await broker.park(dead_letter(1), timeout=PATIENCE)
        await collect(await broker.consume_dead_letters(prefetch=10), 1)

        await broker.close()

        (delivery,) = await collect(await other.consume_dead_letters(prefetch=10), 1)
        assert delivery.body == dead_letter(1)
        assert delivery.redelivered

    @unreadable
    async def test_events_that_nobody_can_read_are_parked_and_later_ones_flow(
        self, system: BrokerSystem, body: bytes, reason: str
    ) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(0, prefetch=10)
        letters = await broker.consume_dead_letters(prefetch=10)

        await system.inject("aiki.events.0", body)
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]
        (delivery,) = await collect(letters, 1)
        assert delivery.body.reason == reason
        assert delivery.body.origin == "aiki.events.0"
        assert delivery.body.detail
        assert body.decode(errors="backslashreplace").startswith(delivery.body.body)

    async def test_an_event_that_nobody_can_read_costs_no_other_of_its_message(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        message = json.loads(encode_events([signal(1), signal(2), signal(3)]))
        message["events"][1]["run_id"] = "x" * 1_000
        subscription = await broker.consume_events(0, prefetch=10)
        letters = await broker.consume_dead_letters(prefetch=10)

        await system.inject("aiki.events.0", json.dumps(message).encode())

        assert bodies_of(await collect(subscription, 2)) == [(signal(1),), (signal(3),)]
        (delivery,) = await collect(letters, 1)
        assert (delivery.body.reason, delivery.body.origin) == ("wrong_content", "aiki.events.0")
        assert json.loads(delivery.body.body)["events"] == [message["events"][1]]

    @unreadable
    async def test_commands_that_nobody_can_read_are_parked_and_later_ones_flow(
        self, system: BrokerSystem, body: bytes, reason: str
    ) -> None:
        broker = await system.connect()
        # With room for a single one: an unreadable command must not keep the place.
        subscription = await broker.consume_commands([QUEUE], prefetch=1)

        await system.inject(QUEUE, body)
        await broker.send([execute_run(1, queue=QUEUE)], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [execute_run(1, queue=QUEUE)]
        (delivery,) = await collect(await broker.consume_dead_letters(prefetch=10), 1)
        assert delivery.body.reason == reason
        assert delivery.body.origin == QUEUE

    async def test_a_query_that_nobody_can_read_is_parked(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        await broker.consume_queries(prefetch=1)

        await system.inject("aiki.queries", b"what?")

        (delivery,) = await collect(await broker.consume_dead_letters(prefetch=10), 1)
        assert delivery.body.origin == "aiki.queries"
        assert delivery.body.body == "what?"

    async def test_a_letter_that_nobody_can_read_becomes_the_body_of_one(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        letters = await broker.consume_dead_letters(prefetch=1)

        await system.inject("aiki.dead-letters", b"not a letter")

        (delivery,) = await collect(letters, 1)
        assert delivery.body.origin == "aiki.dead-letters"
        assert delivery.body.body == "not a letter"

    async def test_many_unreadable_messages_in_a_row_stop_nobody(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        for number in range(50):
            await system.inject("aiki.events.0", b"%d" % number)
        await broker.publish_events(0, [signal(1)], timeout=PATIENCE)

        subscription = await broker.consume_events(0, prefetch=2)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]
        letters = await collect(await broker.consume_dead_letters(prefetch=100), 50)
        assert {delivery.body.body for delivery in letters} == {str(number) for number in range(50)}

    async def test_the_same_unreadable_message_is_the_same_letter(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        await broker.consume_events(0, prefetch=10)

        await system.inject("aiki.events.0", b"again")
        await system.inject("aiki.events.0", b"again")

        one, two = await collect(await broker.consume_dead_letters(prefetch=10), 2)
        assert one.body.id == two.body.id

    async def test_a_command_for_a_queue_that_cannot_exist_is_parked_and_the_others_go_on(
        self, system: BrokerSystem
    ) -> None:
        broker = await system.connect()
        subscription = await broker.consume_commands([QUEUE], prefetch=10)

        await broker.send([execute_run(1, queue="no spaces"), execute_run(2, queue=QUEUE)], timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [execute_run(2, queue=QUEUE)]
        (delivery,) = await collect(await broker.consume_dead_letters(prefetch=10), 1)
        assert delivery.body.reason == "undeliverable"
        assert delivery.body.run_id == "run-1"
        assert delivery.body.workflow == "contract"

    async def test_events_that_are_redelivered_go_to_where_they_were_found(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_events(1, prefetch=10)
        letter = dead_letter(1, origin="aiki.events.1", body=encode_events([signal(1)]).decode())

        await broker.redeliver(letter, timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [(signal(1),)]

    async def test_a_command_that_is_redelivered_goes_to_where_it_was_found(self, system: BrokerSystem) -> None:
        broker = await system.connect()
        subscription = await broker.consume_commands([QUEUE], prefetch=10)
        body = json.dumps(json.loads(encode_command(execute_run(1, queue=QUEUE))), indent=2)

        await broker.redeliver(dead_letter(1, origin=QUEUE, body=body), timeout=PATIENCE)

        assert bodies_of(await collect(subscription, 1)) == [execute_run(1, queue=QUEUE)]
