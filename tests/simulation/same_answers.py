"""Random scripts for brokers: the same is done to two of them, and both have to answer the same.

What is done next is drawn from a seed and from what was answered so far, so two brokers
that answer the same are asked the same. The simulated one goes first: it knows when
nothing more is going to happen. Of the other it is then known how much it has to deliver
after each step.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiki.engine.commands import ArmTimer, Command, DeadLetter, ExecuteRun, ParkDeadLetter, SendEvent
from aiki.engine.events import Event
from aiki.engine.queries import GetRun, QueryFailed
from aiki.engine.retry import RETRY_GRID_MS
from aiki.errors import DeliveryLostError
from aiki.ports.broker import Broker, Delivery, Subscription
from aiki.testing.contracts.broker import BrokerSystem
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    collect,
    dead_letter,
    execute_run,
    outcome,
    progress,
    run_in,
    signal,
)
from aiki.testing.simulation.loop import SimulationLoop
from tests.simulation.simulated_system import SimulatedSystem

__all__ = ["PARTITIONS", "Answers", "answers_of", "simulated_answers"]

PARTITIONS = 3
QUEUES = ("same-a@1", "same-b@1")
LETTERS = "aiki.dead-letters"

# Virtual seconds after which the simulated broker has done whatever it is going to do, retries included.
QUIET = 2.0

Answers = list[str]
"""What was done and what came of it, one line for each step."""


@dataclass(eq=False)
class Consumer:
    """A subscription, and what it was given."""

    number: int
    source: str
    broker: int
    prefetch: int
    subscription: Subscription[Any]
    news: asyncio.Event
    arrived: list[Delivery[Any]] = field(default_factory=list)
    held: list[Delivery[Any]] = field(default_factory=list)
    told: int = 0
    """How much of what arrived the answers have already."""
    is_stopped: bool = False
    has_acknowledged: bool = False
    is_lost: bool = False
    reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take what is delivered until the subscription ends."""
        with suppress(DeliveryLostError):
            while True:
                deliveries = await self.subscription.receive()
                self.arrived += deliveries
                self.held += deliveries
                self.news.set()
        self.is_lost = True
        self.held.clear()
        self.news.set()


class Player:
    """Does to a broker what a seed says."""

    def __init__(self, system: BrokerSystem, brokers: Sequence[Broker], seed: int, expected: Answers | None) -> None:
        self._system = system
        self._brokers = brokers
        self._random = Random(seed)
        self._expected = expected
        self._news = asyncio.Event()
        self._consumers: list[Consumer] = []
        self._subscribed = 0
        self._numbers = 0
        self._answers: Answers = []

    async def play(self, steps: int) -> Answers:
        """Do so many steps; ends with the first that is not answered as expected."""
        deeds = [deed for deed, weight in self._deeds() for _ in range(weight)]
        try:
            while len(self._answers) < steps:
                what = await self._random.choice(deeds)()
                if what is None:
                    continue  # There is nothing that this could be done to.
                self._answers.append(await self._answer(what))
                if self._expected is not None and self._answers[-1] != self._expected[len(self._answers) - 1]:
                    break
            return self._answers
        finally:
            readers = [consumer.reading for consumer in self._consumers if consumer.reading]
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _answer(self, what: str) -> str:
        """Tell what came of a step, once all of it has."""
        if self._expected is None:
            await asyncio.sleep(QUIET)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while self._seen(what) != self._expected[len(self._answers)]:
                        self._news.clear()
                        await self._news.wait()
        answer = self._seen(what)
        for consumer in self._consumers:
            consumer.told = len(consumer.arrived)
        self._consumers = [consumer for consumer in self._consumers if not consumer.is_lost]
        return answer

    def _seen(self, what: str) -> str:
        seen = [
            f"{consumer.source}/{consumer.number}: "
            + " ".join(map(_described, consumer.arrived[consumer.told :]))
            + " lost" * consumer.is_lost
            for consumer in self._consumers
            if consumer.is_lost or consumer.told < len(consumer.arrived)
        ]
        return " | ".join([what, *seen])

    def _deeds(self) -> list[tuple[Callable[[], Awaitable[str | None]], int]]:
        return [
            (self._publish, 6),
            (self._send, 5),
            (self._retry, 2),
            (self._consume_events, 3),
            (self._consume_commands, 3),
            (self._consume_letters, 1),
            (self._acknowledge, 8),
            (self._stop, 1),
            (self._close, 2),
            (self._cut, 2),
            (self._inject, 1),
            (self._ask, 1),
            (self._announce, 1),
        ]

    # -- what is said ----------------------------------------------------------------------------

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _any_broker(self) -> tuple[int, Broker]:
        number = self._random.randrange(len(self._brokers))
        return number, self._brokers[number]

    async def _publish(self) -> str:
        number, broker = self._any_broker()
        partition = self._random.randrange(PARTITIONS)
        events = [signal(self._number()) for _ in range(self._random.randint(1, 3))]
        await broker.publish_events(partition, events, timeout=PATIENCE)
        return f"{number} publishes {[event.id for event in events]} to {partition}"

    async def _send(self) -> str:
        number, broker = self._any_broker()
        commands: list[Command] = [self._command() for _ in range(self._random.randint(1, 3))]
        await broker.send(commands, timeout=PATIENCE)
        return f"{number} sends {[type(command).__name__ for command in commands]}"

    def _command(self) -> Command:
        number, kind = self._number(), self._random.randrange(7)
        if kind == 0:
            return SendEvent(event=self._event_for(self._random.randrange(PARTITIONS)))
        if kind == 1:
            return ParkDeadLetter(letter=dead_letter(number))
        return execute_run(number, queue=self._random.choice(QUEUES))

    def _event_for(self, partition: int) -> Event:
        return signal(self._number(), run_id=run_in(partition, partitions=PARTITIONS))

    async def _retry(self) -> str | None:
        """Have an event come back where there is room for it: elsewhere nobody would see when it is there."""
        partition = self._random.randrange(PARTITIONS)
        if not self._has_room(f"aiki.events.{partition}"):
            return None
        number, broker = self._any_broker()
        await broker.send([ArmTimer(event=self._event_for(partition), delay_ms=RETRY_GRID_MS[0])], timeout=PATIENCE)
        return f"{number} has an event come back to {partition}"

    async def _inject(self) -> str | None:
        """Put in what nobody can read, where it is looked at and parked at once: the order of parking is no promise."""
        queue = self._random.choice((*QUEUES, "aiki.events.0"))
        if not self._has_room(queue) or not self._has_room(LETTERS):
            return None
        for consumer in self._consumers:
            consumer.has_acknowledged |= consumer.source == queue
        body = f"nonsense {self._number()}"
        await self._system.inject(queue, body.encode())
        return f"{body} is put into {queue}"

    async def _ask(self) -> str:
        (asker, asking), (answerer, answering) = self._any_broker(), self._any_broker()
        requests = await answering.consume_queries(prefetch=1)
        asked = asyncio.ensure_future(asking.ask(GetRun(run_id=f"run-{self._number()}"), timeout=PATIENCE))
        (delivery,) = await collect(requests, 1)
        assert isinstance(delivery.body.query, GetRun)
        await answering.answer(delivery.body, QueryFailed(reason=delivery.body.query.run_id))
        await requests.acknowledge([delivery])
        answer = await asked
        await requests.close()
        return f"{asker} asks, and {answerer} answers {answer}"

    async def _announce(self) -> str:
        (sender, sending), (listener, listening) = self._any_broker(), self._any_broker()
        run_id = f"run-{self._number()}"
        notices = await listening.consume_notices("client-1")
        await notices.watch(run_id)
        said: list[Command] = [
            progress(run_id),
            outcome("other", client="client-1"),
            outcome("nobodys"),
            outcome(run_id),
        ]
        await sending.send(said, timeout=PATIENCE)
        heard = await collect(notices, 3)
        await notices.close()
        return (
            f"{sender} announces, and {listener} hears {[(type(one.body).__name__, one.body.run_id) for one in heard]}"
        )

    def _has_room(self, source: str) -> bool:
        """Whether what is put there now is delivered now."""
        line = [consumer for consumer in self._consumers if consumer.source == source and not consumer.is_stopped]
        return bool(line) and len(line[0].held) < line[0].prefetch

    # -- who listens -----------------------------------------------------------------------------

    async def _consume_events(self) -> str | None:
        partition, prefetch = self._random.randrange(PARTITIONS), self._random.choice((1, 2, 5))
        number, broker = self._any_broker()
        source = f"aiki.events.{partition}"
        if sum(consumer.source == source for consumer in self._consumers) > 1:
            return None
        return self._begin(source, number, await broker.consume_events(partition, prefetch=prefetch), prefetch)

    async def _consume_commands(self) -> str | None:
        queue, prefetch = self._random.choice(QUEUES), self._random.choice((1, 2, 5))
        number, broker = self._any_broker()
        if any(consumer.source == queue and not consumer.is_stopped for consumer in self._consumers):
            return None  # Which of two gets a command is nobody's promise.
        return self._begin(queue, number, await broker.consume_commands([queue], prefetch=prefetch), prefetch)

    async def _consume_letters(self) -> str | None:
        number, broker = self._any_broker()
        if any(consumer.source == LETTERS for consumer in self._consumers):
            return None
        return self._begin(LETTERS, number, await broker.consume_dead_letters(prefetch=5), 5)

    def _begin(self, source: str, broker: int, subscription: Subscription[Any], prefetch: int) -> str:
        self._subscribed += 1
        consumer = Consumer(self._subscribed, source, broker, prefetch, subscription, self._news)
        consumer.reading = asyncio.ensure_future(consumer.read())
        self._consumers.append(consumer)
        return f"{broker} consumes {source}/{consumer.number} with {prefetch}"

    # -- what becomes of it ----------------------------------------------------------------------

    def _any_consumer(self, fits: Callable[[Consumer], bool] = lambda consumer: True) -> Consumer | None:
        fitting = [consumer for consumer in self._consumers if fits(consumer)]
        return self._random.choice(fitting) if fitting else None

    async def _acknowledge(self) -> str | None:
        consumer = self._any_consumer(lambda consumer: bool(consumer.held))
        if consumer is None:
            return None
        some = self._random.sample(consumer.held, self._random.randint(1, len(consumer.held)))
        consumer.held = [delivery for delivery in consumer.held if delivery not in some]
        consumer.has_acknowledged = True
        await consumer.subscription.acknowledge(some)
        return f"{consumer.source}/{consumer.number} acknowledges {' '.join(map(_described, some))}"

    async def _stop(self) -> str | None:
        consumer = self._any_consumer(lambda consumer: not consumer.is_stopped)
        if consumer is None:
            return None
        consumer.is_stopped = True
        await consumer.subscription.stop()
        return f"{consumer.source}/{consumer.number} stops"

    async def _close(self) -> str | None:
        consumer = self._any_consumer()
        if consumer is None:
            return None
        await consumer.subscription.close()
        return f"{consumer.source}/{consumer.number} closes"

    async def _cut(self) -> str | None:
        """Cut a broker off. Not after an acknowledgement: whether a server has read that one is nobody's promise."""
        number, broker = self._any_broker()
        own = [consumer for consumer in self._consumers if consumer.broker == number]
        if not own or any(consumer.has_acknowledged for consumer in own):
            return None
        await self._system.cut(broker)
        return f"{number} is cut off"


def _described(delivery: Delivery[Any]) -> str:
    match delivery.body:
        case ExecuteRun(run_id=what):
            pass
        case DeadLetter() as letter:
            what = f"{letter.reason}:{letter.origin}:{letter.body}"
        case events:
            what = "+".join(event.id for event in events)
    return f"{what}{'*' * delivery.redelivered}"


async def answers_of(system: BrokerSystem, seed: int, *, steps: int, expected: Answers | None) -> Answers:
    """Do to *system* what *seed* says, and tell what it answered."""
    brokers = [await system.connect() for _ in range(3)]
    return await Player(system, brokers, seed, expected).play(steps)


def simulated_answers(seed: int, *, steps: int) -> Answers:
    """Tell what the simulated broker answers. Has an event loop of its own."""
    loop = SimulationLoop()

    async def play() -> Answers:
        system = SimulatedSystem(loop, partitions=PARTITIONS)
        try:
            return await answers_of(system, seed, steps=steps, expected=None)
        finally:
            await system.close()

    try:
        return loop.run_until_complete(play())
    finally:
        loop.close()
