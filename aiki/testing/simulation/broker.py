"""A simulated broker: that in memory, behind a network.

Every operation of ``MemoryBroker`` is done at the other end of a link. Acknowledgements
are sent and not answered, as with a real broker: one that is lost on the way brings
the message back.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, TypeVar

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.adapters.broker.memory.notices import MemoryNoticeSubscription
from aiki.adapters.broker.memory.queues import MemoryQueue, MemorySubscription, Message
from aiki.codec.messages import encode_answer, encode_query
from aiki.engine.commands import Command, DeadLetter, ExecuteRun, NotifyWorker, WorkerCommand
from aiki.engine.queries import Answer, Query
from aiki.errors import BrokerUnavailableError, PublishUncertainError, QueryTimeoutError
from aiki.ports.broker import Delivery, NoticeSubscription, Request, Subscription
from aiki.testing.simulation.network import Link, LinkLostError

__all__ = ["SimulatedBroker", "SimulatedHub"]

T = TypeVar("T")
S = TypeVar("S", bound=MemorySubscription[Any])

OnOrder = Callable[[WorkerCommand], None]


class SimulatedHub(MemoryHub):
    """A broker that may lose single messages, as one does that loses the majority of a queue."""

    def lose_orders(self, queue: str) -> None:
        """Lose the orders of runs that wait in *queue*, and nothing else."""
        waiting = self._commands.get(queue)
        if waiting is not None and any(isinstance(body, ExecuteRun) for body in waiting.ready):
            waiting.clear()


class _Subscription(MemorySubscription[T]):
    """Deliveries that take a while to arrive."""

    def __init__(
        self, broker: "SimulatedBroker", *args: Any, on_arrival: Callable[[Any], None] = lambda body: None, **kw: Any
    ) -> None:
        self._broker = broker
        self._link = broker.link
        self._on_arrival = on_arrival
        super().__init__(*args, **kw)

    def hand_over(self, queue: MemoryQueue[T], message: Message[T]) -> None:
        """Take a message from *queue*, and bring it over."""
        tag = self.take(queue, message)
        self._link.back(self._arrive, tag, message)

    def _arrive(self, tag: int, message: Message[T]) -> None:
        delivery: Delivery[T] = Delivery(message.value, message.redelivered, tag)  # type: ignore[arg-type]
        network = self._link.network
        if network.is_traced:
            network.say(self._link.process, f"< {_named(message.value)}{' again' * message.redelivered}")
        if not message.redelivered:
            self._on_arrival(message.value)
        self.arrive(delivery)

    async def acknowledge(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Tell the broker; whether it hears is another matter."""
        self.check()
        self._broker.post(f"acknowledge {len(deliveries)} of {self.names}", lambda: self._settle_all(deliveries))

    def _settle_all(self, deliveries: Sequence[Delivery[T]]) -> None:
        self._broker.on_settled([delivery.body for delivery in deliveries if delivery.tag in self._unacknowledged])
        self.settle(deliveries)

    def lose_orders(self) -> None:
        """Have the broker forget the orders of runs that are held here."""
        for tag, (queue, message) in list(self._unacknowledged.items()):
            if isinstance(message.value, ExecuteRun):
                del self._unacknowledged[tag]
                queue.settle(message)

    async def stop(self) -> None:
        """Take nothing more."""
        self._broker.post(f"stop {self.names}", self.leave)

    async def close(self) -> None:
        """Give back what is not acknowledged, after what was."""
        self._broker.post(f"close {self.names}", lambda: self.lose("the subscription was closed"))


class _NoticeSubscription(_Subscription[Any], MemoryNoticeSubscription):
    """The notices for one client, after a while."""


class SimulatedBroker(MemoryBroker):
    """One process's end of the broker in memory, over a network that may fail."""

    def __init__(self, hub: MemoryHub, link: Link, *, on_order: OnOrder = lambda order: None) -> None:
        super().__init__(hub)
        self.link = link
        self._on_order = on_order
        self.on_put: Callable[[Any], None] = lambda value: None
        """Is shown what the broker has from now on."""
        self.on_settled: Callable[[Sequence[Any]], None] = lambda bodies: None
        """Is shown what the broker forgets because it was acknowledged."""
        self._correlations = count(1)

    async def start(self) -> None:
        """Connect."""
        await self._outside(super().start)

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        await self._outside(super().close)

    def lose_connection(self, why: str, *, swallow: bool = False) -> None:
        """Be disconnected; with *swallow*, what is under way does not arrive."""
        self.link.network.say(self.link.process, f"! {why}")
        self.link.lose(swallow=swallow)
        super().lose_connection(why)

    def lose_orders(self) -> None:
        """Have the broker forget the orders of runs that this process holds."""
        for subscription in self._subscriptions:
            if isinstance(subscription, _Subscription):
                subscription.lose_orders()

    def die(self) -> None:
        """Let the broker see that the process is gone."""
        self.lose_connection("the process died")
        self._open = False
        self._hub.forget(self)

    async def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        """Send *commands*."""
        ready = [self._hub.prepare(command) for command in commands]
        await self._connection(timeout)

        def put() -> None:
            for one in ready:
                one()

        # Of a window that was not confirmed, any part may have arrived.
        some = ready[: self.link.network.random.randint(0, len(ready))]
        await self._asked(f"> {_names(commands)}", put, timeout, partly=lambda: [one() for one in some])

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask any orchestrator."""
        encode_query(query, bytes_max=self._hub.message_bytes_max)
        await self._connection(timeout)
        name = f"{self.address}:{next(self._correlations)}"
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asking[name] = answered
        messages: list[Message[Request]] = []
        request = Request(query, self.address, name)
        self.post(f"? {query.type}", lambda: messages.append(self._hub.queries.put(request)))
        try:
            async with asyncio.timeout(timeout):
                return await answered
        except TimeoutError:
            raise QueryTimeoutError(timeout=timeout) from None
        finally:
            for message in messages:
                self._hub.queries.withdraw(message)
            del self._asking[name]

    def hear(self, correlation_id: str, answer: Answer) -> None:
        """Take an answer, after a while."""
        self.link.back(super().hear, correlation_id, answer)

    async def redeliver(self, letter: DeadLetter, *, timeout: float) -> None:
        """Put the original message of *letter* where it was found."""
        await self._connection(timeout)
        await self._asked("> redeliver", lambda: self._hub.inject(letter.origin, letter.body.encode()), timeout)

    async def answer(self, request: Request, answer: Answer) -> None:
        """Answer *request*."""
        encode_answer(answer, bytes_max=self._hub.message_bytes_max)
        await self._connection()
        self.post(f"> {type(answer).__name__}", lambda: self._hub.reply(request, answer))

    async def consume_notices(self, client: str) -> NoticeSubscription:
        """Subscribe to the notices for *client*."""
        await self._connection()

        def subscribe() -> _NoticeSubscription:
            subscription = _NoticeSubscription(self, self._hub.notices, client, on_end=self._forget)
            self._remember(subscription)
            return subscription

        return await self._subscribed("subscribe to notices", subscribe)

    async def consume_control(self, worker: str) -> Subscription[NotifyWorker]:
        """Subscribe to what is said to *worker*."""
        await self._connection()

        def subscribe() -> _Subscription[NotifyWorker]:
            queue = self._hub.open_control(worker)

            def on_end(ended: MemorySubscription[NotifyWorker]) -> None:
                self._hub.close_control(worker, queue)
                self._forget(ended)

            subscription: _Subscription[NotifyWorker] = _Subscription(self, [queue], prefetch=None, on_end=on_end)
            self._remember(subscription)
            return subscription

        return await self._subscribed("subscribe to control", subscribe)

    async def consume_commands(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        """Subscribe to the commands of *queues*."""
        await self._connection()
        found = [self._hub.commands(name) for name in queues]
        return await self._subscribed(
            "subscribe to commands", lambda: self._joined(found, prefetch, on_arrival=self._on_order)
        )

    async def _subscribe(self, queues: Sequence[MemoryQueue[T]], *, prefetch: int) -> MemorySubscription[T]:
        await self._connection()
        return await self._subscribed(f"subscribe to {queues[0].name}", lambda: self._joined(queues, prefetch))

    def _joined(self, queues: Sequence[MemoryQueue[T]], prefetch: int, **kw: Any) -> _Subscription[T]:
        subscription: _Subscription[T] = _Subscription(self, queues, prefetch=prefetch, on_end=self._forget, **kw)
        self._remember(subscription)
        return subscription

    async def _subscribed(self, what: str, subscribe: Callable[[], S]) -> S:
        """Subscribe at the other end; if nobody waits any more for what comes of it, undo it."""
        made: list[S] = []
        is_wanted = True

        def do() -> None:
            if is_wanted and not made:
                made.append(subscribe())

        try:
            await self.link.call(what, do, on_break=self._break, outlives=False)
        except (LinkLostError, asyncio.CancelledError) as error:
            is_wanted = False
            for subscription in made:
                subscription.lose("nobody wants it any more")
            if isinstance(error, LinkLostError):
                raise BrokerUnavailableError(f"the connection was lost: {what}") from None
            raise
        return made[0]

    async def _put_safely(self, queue: MemoryQueue[T], value: T, *, timeout: float) -> None:
        await self._connection(timeout)

        def put() -> None:
            self.on_put(value)
            queue.put(value)

        await self._asked(f"> {_named(value)}", put, timeout)

    async def _asked(
        self,
        what: str,
        do: Callable[[], T],
        timeout: float | None = None,
        *,
        partly: Callable[[], object] | None = None,
    ) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await self.link.call(what, do, partly=partly, on_break=self._break)
        except LinkLostError:
            raise PublishUncertainError(f"the connection was lost; nobody knows what became of {what}") from None
        except TimeoutError:
            raise PublishUncertainError(f"no answer within {timeout:g} s; who knows what became of {what}") from None

    def post(self, what: str, do: Callable[[], object]) -> None:
        """Have something done at the other end, and do not wait to hear of it."""
        self.link.post(what, do, on_break=self._break)

    def _break(self) -> None:
        self.lose_connection("the connection broke", swallow=self.link.network.random.random() < 0.5)
        loop = self.link.network.loop
        loop.later(self.link.network.random.uniform(0.001, 2.0), self.connect)

    async def _outside(self, do: Callable[[], Any]) -> None:
        """Do something that begins tasks of the broker: they must not die with the process that is connected."""
        loop = self.link.network.loop
        done = loop.create_future()

        async def work() -> None:
            try:
                done.set_result(await do())
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                done.set_exception(error)

        loop.later(0, lambda: loop.create_task(work()))
        await done


def _named(value: object) -> str:
    """Describe what is carried, for the trace."""
    if isinstance(value, tuple):
        return " ".join(map(_named, value))
    if isinstance(value, Request):
        return value.query.type
    value = getattr(value, "event", value)
    facts = [type(value).__name__]
    run_id = getattr(value, "run_id", None)
    if run_id:
        facts.append(str(run_id)[-6:])
    pair = getattr(value, "pair", None)
    if pair is not None:
        facts.append(f"e{pair.epoch}")
    facts += [f"#{entry.seq}:{entry.kind}" for entry in getattr(value, "entries", ())]
    for name in ("last_seq", "base_seq", "notice", "due_at", "status"):
        fact = getattr(value, name, None)
        if fact is not None:
            facts.append(f"{name}={fact}")
    return f"{facts[0]}({', '.join(facts[1:])})"


def _names(values: Sequence[object]) -> str:
    return " ".join(map(_named, values))
