"""Events on their way out: batched without waiting, in order, sent again until they are confirmed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.clock import SystemClock
from aiki.engine.events import Event, RunOrphaned, RunStarted, SignalSent
from aiki.engine.payload import dump_payload
from aiki.engine.state import Pair
from aiki.errors import (
    BrokerUnavailableError,
    ClientClosedError,
    PayloadTooLargeError,
    PublishUncertainError,
    RunAbandonedError,
    UnroutableError,
)
from aiki.ports.broker import Subscription
from aiki.sdk import publisher
from aiki.sdk.publisher import BYTES_MAX, EventPublisher
from aiki.testing.builders import T0

SOON = 5.0


def signal(event_id: str, run_id: str = "run", *, size: int = 0) -> SignalSent:
    return SignalSent(id=event_id, run_id=run_id, at=T0, name="go", payload=dump_payload("x" * size))


def started(event_id: str, pair: Pair) -> RunStarted:
    return RunStarted(id=event_id, run_id="run", at=T0, incarnation="i", pair=pair, worker="w")


class Setting:
    """A publisher at one end of a hub with one partition, and whoever stores events at the other."""

    def __init__(self, hub: MemoryHub) -> None:
        self.hub = hub
        self.broker = MemoryBroker(hub)
        self.publisher = EventPublisher(self.broker)
        self.other_end = MemoryBroker(hub)
        self.events: Subscription[tuple[Event, ...]]

    async def next_message(self) -> list[str]:
        """Take one message and store it; tells the ids of its events."""
        (delivery,) = await self.seen()
        await self.events.acknowledge([delivery])
        return [event.id for event in delivery.body]

    async def seen(self) -> Sequence:  # type: ignore[type-arg]
        """Take one message without storing it."""
        async with asyncio.timeout(SOON):
            return await self.events.receive()


@asynccontextmanager
async def a_setting(**options: object) -> AsyncIterator[Setting]:
    """With ``prefetch=1`` and confirms that wait for storing, a test holds each message as long as it likes."""
    setting = Setting(
        MemoryHub(clock=SystemClock(), partitions=1, durable_confirms=True, **options)  # type: ignore[arg-type]
    )
    await setting.broker.start()
    await setting.other_end.start()
    setting.events = await setting.other_end.consume_events(0, prefetch=1)
    try:
        yield setting
    finally:
        await setting.publisher.close(timeout=0.01)
        await setting.broker.close()
        await setting.other_end.close()


async def test_an_event_that_is_alone_leaves_at_once_and_alone() -> None:
    async with a_setting() as setting:
        publishing = asyncio.create_task(setting.publisher.publish(signal("only")))

        assert await setting.next_message() == ["only"]
        await asyncio.wait_for(publishing, SOON)


async def test_what_comes_while_a_publish_is_under_way_leaves_together_and_in_order() -> None:
    async with a_setting() as setting:
        first = asyncio.create_task(setting.publisher.publish(signal("first")))
        (held,) = await setting.seen()

        later = [asyncio.create_task(setting.publisher.publish(signal(f"later-{n}"))) for n in range(300)]
        await asyncio.sleep(0)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == [f"later-{n}" for n in range(300)]
        await asyncio.wait_for(asyncio.gather(first, *later), SOON)


async def test_a_start_leaves_with_what_follows_it() -> None:
    async with a_setting() as setting:
        start = setting.publisher.submit([started("start", Pair(1, "one"))])
        await asyncio.sleep(0)
        learnt = setting.publisher.submit([signal("learnt")])

        assert await setting.next_message() == ["start", "learnt"]
        await asyncio.wait_for(asyncio.gather(start, learnt), SOON)


async def test_a_start_that_waited_for_a_confirm_leaves_with_what_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "STARTED_SECONDS", 60.0)  # However slow the machine is.
    async with a_setting() as setting:
        asked = asyncio.create_task(setting.publisher.publish(signal("asked")))
        (held,) = await setting.seen()
        start = setting.publisher.submit([started("start", Pair(1, "one"))])
        await setting.events.acknowledge([held])
        await asyncio.wait_for(asked, SOON)
        learnt = setting.publisher.submit([signal("learnt")])

        assert await setting.next_message() == ["start", "learnt"]
        await asyncio.wait_for(asyncio.gather(start, learnt), SOON)


async def test_a_start_that_nothing_follows_leaves_by_itself() -> None:
    async with a_setting() as setting:
        start = setting.publisher.submit([started("start", Pair(1, "one"))])

        assert await setting.next_message() == ["start"]
        await asyncio.wait_for(start, SOON)


async def test_a_publisher_that_closes_sends_a_start_that_nothing_followed() -> None:
    async with a_setting() as setting:
        start = setting.publisher.submit([started("start", Pair(1, "one"))])
        closing = asyncio.create_task(setting.publisher.close())

        assert await setting.next_message() == ["start"]
        await asyncio.wait_for(asyncio.gather(start, closing), SOON)


async def test_a_message_carries_a_bounded_number_of_events_and_of_bytes() -> None:
    async with a_setting() as setting:
        many = asyncio.create_task(setting.publisher.publish_all([signal(f"{n}") for n in range(1001)]))
        assert [len(await setting.next_message()) for _ in range(3)] == [500, 500, 1]
        await asyncio.wait_for(many, SOON)

        large = asyncio.create_task(setting.publisher.publish_all([signal(f"{n}", size=200_000) for n in range(3)]))
        assert [len(await setting.next_message()) for _ in range(2)] == [2, 1]
        await asyncio.wait_for(large, SOON)


async def test_what_was_not_confirmed_is_sent_again_with_the_same_id() -> None:
    async with a_setting() as setting:
        publishing = asyncio.create_task(setting.publisher.publish(signal("same")))
        await setting.seen()

        setting.hub.disconnect(setting.broker)
        await setting.events.close()
        setting.events = await setting.other_end.consume_events(0, prefetch=1)

        assert await setting.next_message() == ["same"]
        assert await setting.next_message() == ["same"]
        await asyncio.wait_for(publishing, SOON)


async def test_without_a_timeout_an_outage_is_waited_out() -> None:
    async with a_setting() as setting:
        setting.hub.isolate(setting.broker)
        publishing = asyncio.create_task(setting.publisher.publish(signal("patient")))
        await asyncio.sleep(0)

        setting.hub.rejoin(setting.broker)

        assert await setting.next_message() == ["patient"]
        await asyncio.wait_for(publishing, SOON)


async def test_an_event_whose_time_is_over_before_it_was_sent_is_withdrawn_and_the_error_is_certain() -> None:
    async with a_setting() as setting:
        setting.hub.isolate(setting.broker)

        with pytest.raises(BrokerUnavailableError, match="was not sent"):
            await setting.publisher.publish(signal("late"), timeout=0.02)

        setting.hub.rejoin(setting.broker)
        publishing = asyncio.create_task(setting.publisher.publish(signal("next")))
        assert await setting.next_message() == ["next"]
        await asyncio.wait_for(publishing, SOON)


async def test_an_event_whose_time_is_over_under_way_may_have_arrived_and_the_error_says_so() -> None:
    async with a_setting() as setting:
        with pytest.raises(PublishUncertainError, match="was not confirmed"):
            await setting.publisher.publish(signal("perhaps"), timeout=0.02)

        assert await setting.next_message() == ["perhaps"]


async def test_an_event_that_waits_behind_another_one_is_withdrawn_when_its_time_is_over() -> None:
    async with a_setting() as setting:
        first = asyncio.create_task(setting.publisher.publish(signal("first")))
        (held,) = await setting.seen()

        with pytest.raises(BrokerUnavailableError, match="was not sent"):
            await setting.publisher.publish(signal("second"), timeout=0.01)
        third = asyncio.create_task(setting.publisher.publish(signal("third")))
        await asyncio.sleep(0)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["third"]
        await asyncio.wait_for(asyncio.gather(first, third), SOON)


async def test_a_cancelled_caller_withdraws_what_was_not_sent() -> None:
    async with a_setting() as setting:
        first = asyncio.create_task(setting.publisher.publish(signal("first")))
        (held,) = await setting.seen()
        cancelled = asyncio.create_task(setting.publisher.publish(signal("cancelled")))
        last = asyncio.create_task(setting.publisher.publish(signal("last")))
        await asyncio.sleep(0)

        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["last"]
        await asyncio.wait_for(asyncio.gather(first, last), SOON)


async def test_what_is_submitted_together_is_done_when_all_of_it_is_confirmed() -> None:
    async with a_setting() as setting:
        setting.publisher.submit([signal("before")])
        (held,) = await setting.seen()
        together = setting.publisher.submit([signal("a", size=BYTES_MAX), signal("b")])
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["a"]
        (last,) = await setting.seen()
        assert not together.done()

        await setting.events.acknowledge([last])
        await asyncio.wait_for(together, SOON)


async def test_who_gives_up_what_was_submitted_together_withdraws_all_that_was_not_sent() -> None:
    async with a_setting() as setting:
        setting.publisher.submit([signal("before")])
        (held,) = await setting.seen()
        together = setting.publisher.submit([signal("a"), signal("b")])
        last = setting.publisher.submit([signal("c")])

        together.cancel()
        await asyncio.gather(together, return_exceptions=True)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["c"]
        await asyncio.wait_for(last, SOON)


async def test_what_was_submitted_together_fails_with_the_first_of_it_and_the_rest_is_not_sent() -> None:
    async with a_setting() as setting:
        setting.publisher.submit([signal("before")])
        (held,) = await setting.seen()
        together = setting.publisher.submit([signal("a", "forgotten"), signal("b", "kept")])
        last = setting.publisher.submit([signal("c")])

        setting.publisher.forget("forgotten")
        with pytest.raises(RunAbandonedError):
            await asyncio.wait_for(together, SOON)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["c"]
        await asyncio.wait_for(last, SOON)


async def test_to_submit_nothing_is_done_at_once() -> None:
    async with a_setting() as setting:
        await asyncio.wait_for(setting.publisher.submit([]), SOON)


async def test_a_forgotten_run_is_not_sent_and_those_who_wait_for_it_hear_so() -> None:
    async with a_setting() as setting:
        setting.hub.isolate(setting.broker)
        forgotten = asyncio.create_task(setting.publisher.publish(signal("a", "forgotten")))
        kept = asyncio.create_task(setting.publisher.publish(signal("b", "kept")))
        await asyncio.sleep(0)

        setting.publisher.forget("forgotten")
        with pytest.raises(RunAbandonedError):
            await asyncio.wait_for(forgotten, SOON)
        setting.hub.rejoin(setting.broker)

        messages = [await setting.next_message()]
        if messages == [["a"]]:  # It was under way already: a message is not taken apart.
            messages.append(await setting.next_message())
        assert "b" in messages[-1]
        await asyncio.wait_for(kept, SOON)


async def test_forgetting_one_dispatch_of_a_run_leaves_its_next_one_alone() -> None:
    async with a_setting() as setting:
        first = asyncio.create_task(setting.publisher.publish(signal("first")))
        (held,) = await setting.seen()
        old = setting.publisher.submit([started("old", Pair(1, "a"))])
        new = setting.publisher.submit([started("new", Pair(2, "b"))])

        setting.publisher.forget("run", Pair(1, "a"))
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["new"]
        await asyncio.wait_for(asyncio.gather(first, new), SOON)
        assert isinstance(old.exception(), RunAbandonedError)


async def test_that_nobody_executes_a_dispatch_is_said_even_if_its_run_is_forgotten() -> None:
    async with a_setting() as setting:
        first = asyncio.create_task(setting.publisher.publish(signal("first")))
        (held,) = await setting.seen()
        pair = Pair(1, "a")
        orphan = RunOrphaned(id="orphan", run_id="run", at=T0, incarnation="i", pair=pair, worker="w")
        reported = setting.publisher.submit([orphan])

        setting.publisher.forget("run", pair)
        await setting.events.acknowledge([held])

        assert await setting.next_message() == ["orphan"]
        await asyncio.wait_for(asyncio.gather(first, reported), SOON)


async def test_an_event_that_is_too_large_fails_alone() -> None:
    async with a_setting(message_bytes_max=20_000) as setting:
        events = [signal(f"small-{n}") for n in range(5)]
        events.insert(2, signal("large", size=30_000))
        publishing = asyncio.create_task(setting.publisher.publish_all(events))

        arrived: list[str] = []
        while len(arrived) < 5:
            arrived += await setting.next_message()

        assert arrived == [f"small-{n}" for n in range(5)]
        outcomes = await asyncio.wait_for(publishing, SOON)
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [PayloadTooLargeError]
        assert isinstance(outcomes[2], PayloadTooLargeError)


class WronglySetUp(MemoryBroker):
    """Believes in more partitions than there are queues."""

    @property
    def partitions(self) -> int:
        return 1_000_003


async def test_a_caller_with_a_timeout_hears_at_once_that_there_is_no_queue() -> None:
    async with a_setting() as setting:
        broker = WronglySetUp(setting.hub)
        await broker.start()
        publisher = EventPublisher(broker)

        with pytest.raises(UnroutableError):
            await publisher.publish(signal("nowhere"), timeout=SOON)

        await publisher.close()
        await broker.close()


async def test_closing_waits_for_what_is_under_way() -> None:
    async with a_setting() as setting:
        submitted = setting.publisher.submit([signal("a"), signal("b")])
        closing = asyncio.create_task(setting.publisher.close(timeout=SOON))

        arrived = await setting.next_message()
        await asyncio.wait_for(closing, SOON)

        assert arrived == ["a", "b"]
        await submitted
        with pytest.raises(ClientClosedError):
            await setting.publisher.publish(signal("too late"))


async def test_closing_is_bounded_and_tells_what_is_uncertain() -> None:
    async with a_setting() as setting:
        under_way = asyncio.create_task(setting.publisher.publish(signal("under way")))
        await setting.seen()
        waiting = asyncio.create_task(setting.publisher.publish(signal("waiting")))
        await asyncio.sleep(0)

        await setting.publisher.close(timeout=0.01)

        with pytest.raises(PublishUncertainError):
            await under_way
        with pytest.raises(BrokerUnavailableError):
            await waiting


async def test_nothing_is_lost_or_doubled_in_order_under_load() -> None:
    async with a_setting() as setting:
        arrived: list[str] = []

        async def store() -> None:
            while len(arrived) < 5_000:
                arrived.extend(await setting.next_message())

        storing = asyncio.create_task(store())
        await asyncio.gather(*(setting.publisher.publish(signal(f"{n}"), timeout=30) for n in range(5_000)))
        await storing

        assert arrived == [f"{n}" for n in range(5_000)]
