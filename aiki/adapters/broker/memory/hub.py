"""The hub: the queues themselves, and what goes where. What a server is to RabbitMQ's clients."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from aiki.adapters.broker.memory.notices import NoticeBoard
from aiki.adapters.broker.memory.queues import MemoryQueue
from aiki.adapters.broker.memory.retries import RetryLines
from aiki.codec import messages as codec
from aiki.engine.commands import (
    AnnounceAcceptance,
    AnnounceOutcome,
    AnnounceProgress,
    ArmTimer,
    Command,
    DeadLetter,
    ExecuteRun,
    ExecuteTask,
    NotifyWorker,
    ParkDeadLetter,
    SendEvent,
    WorkerCommand,
)
from aiki.engine.events import Event
from aiki.engine.ids import partition_of
from aiki.engine.queries import Answer
from aiki.errors import InvalidNameError, UndecodableError, UnroutableError
from aiki.ports.broker import Request
from aiki.ports.clock import Clock
from broker_topology import (
    COMMANDS,
    CONTROL,
    DEAD_LETTERS,
    EVENTS,
    QUERIES,
    QueueNameError,
    check_command_queue,
    partition_queue,
    retry_name,
)

if TYPE_CHECKING:
    from aiki.adapters.broker.memory.broker import MemoryBroker

__all__ = ["MemoryHub"]

T = TypeVar("T")


class MemoryHub:
    """Everything that a broker holds, in this process and nowhere else.

    With *durable_confirms*, what is published counts as safe only when its consumer has
    acknowledged it, because by then it is in the store: nothing here survives the process.
    Values are encoded to see that they can be, and carried as they are; only what was
    injected as bytes is decoded.

    Tests may cut brokers off, stop and start it, and look into its queues.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        partitions: int = 8,
        durable_confirms: bool = False,
        message_bytes_max: int = codec.MESSAGE_BYTES_MAX,
    ) -> None:
        self.partitions = partitions
        self.durable_confirms = durable_confirms
        self.message_bytes_max = message_bytes_max
        self.notices = NoticeBoard(self._park)
        self.retries = RetryLines(clock, self._send_event)
        self.dead_letters = MemoryQueue(DEAD_LETTERS, decode=codec.decode_dead_letter, park=self._park)
        self.queries = MemoryQueue(QUERIES, decode=self._decode_query, park=self._park)
        self._clock = clock
        self._events = [self._events_queue(number) for number in range(partitions)]
        self._commands: dict[str, MemoryQueue[WorkerCommand]] = {}
        self._control: defaultdict[str, list[MemoryQueue[NotifyWorker]]] = defaultdict(list)
        self._brokers: dict[str, MemoryBroker] = {}
        self._isolated: set[MemoryBroker] = set()
        self._stopped = False

    # Who is connected.

    def enter(self, broker: "MemoryBroker") -> None:
        """Know *broker* from now on."""
        self._brokers[broker.address] = broker
        self.retries.resume()

    async def leave(self, broker: "MemoryBroker") -> None:
        """Know *broker* no longer. With the last one, retries stop moving."""
        self.forget(broker)
        if not self._brokers:
            await self.retries.pause()

    def forget(self, broker: "MemoryBroker") -> None:
        """Know *broker* no longer; its process is gone."""
        self._brokers.pop(broker.address, None)
        self._isolated.discard(broker)

    def is_reachable(self, broker: "MemoryBroker") -> bool:
        """Whether *broker* may connect."""
        return not self._stopped and broker not in self._isolated

    def disconnect(self, broker: "MemoryBroker") -> None:
        """Lose the connection of *broker*; it connects again in the next turn of the event loop."""
        broker.lose_connection("the connection was lost")
        asyncio.get_running_loop().call_soon(broker.connect)

    def isolate(self, broker: "MemoryBroker") -> None:
        """Lose the connection of *broker* until it may ``rejoin``."""
        self._isolated.add(broker)
        broker.lose_connection("the connection was lost")

    def rejoin(self, broker: "MemoryBroker") -> None:
        """Let *broker* connect again."""
        self._isolated.discard(broker)
        broker.connect()

    def stop(self) -> None:
        """Lose every connection until it is started again. What is in the queues stays there."""
        self._stopped = True
        for broker in tuple(self._brokers.values()):
            broker.lose_connection("the broker was stopped")

    def start(self) -> None:
        """Let everybody connect again."""
        self._stopped = False
        for broker in tuple(self._brokers.values()):
            broker.connect()

    def lose_everything(self) -> None:
        """Lose every connection and everything in the queues, as with a disk; ``start`` it again."""
        self.stop()
        for queue in self._named().values():
            queue.clear()
        self.retries.clear()

    # Queues.

    def events(self, partition: int) -> MemoryQueue[tuple[Event, ...]]:
        """Find the queue of a partition.

        Raises:
            UnroutableError: there is no such partition.
        """
        if not 0 <= partition < self.partitions:
            raise UnroutableError(EVENTS, str(partition))
        return self._events[partition]

    def commands(self, name: str) -> MemoryQueue[WorkerCommand]:
        """Find a queue of commands, or make it.

        Raises:
            InvalidNameError: no queue can have this name.
        """
        queue = self._commands.get(name)
        if queue is None:
            try:
                check_command_queue(name)
            except QueueNameError as error:
                raise InvalidNameError("queue", name, reason=error.reason) from error
            queue = MemoryQueue(name, decode=self._decoder(codec.decode_command), park=self._park)
            self._commands[name] = queue
        return queue

    def open_control(self, worker: str) -> MemoryQueue[NotifyWorker]:
        """Make a queue for what is said to *worker*."""
        decode = self._decoder(codec.decode_control)
        queue = MemoryQueue(f"{CONTROL}.{worker}", decode=decode, park=self._park)
        self._control[worker].append(queue)
        return queue

    def close_control(self, worker: str, queue: MemoryQueue[NotifyWorker]) -> None:
        """Remove a queue that nobody listens to any more."""
        self._control[worker].remove(queue)
        if not self._control[worker]:
            del self._control[worker]

    def inject(self, queue: str, body: bytes) -> None:
        """Put *body* into the queue named *queue*, past every codec; a queue of commands is made if missing.

        Raises:
            UnroutableError: it is the name of something of Aiki's that does not exist.
        """
        found = self._named().get(queue)
        if found is not None:
            found.put_raw(body)
            return
        try:
            check_command_queue(queue)
        except QueueNameError as error:
            raise UnroutableError("", queue, hint="there is no such queue") from error
        self.commands(queue).put_raw(body)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The names of all queues that there are."""
        return tuple(self._named())

    def ready(self, queue: str) -> tuple[Any, ...]:
        """Tell what waits in *queue*: values, or bytes where they were injected. Nothing, if there is none."""
        found = self._named().get(queue)
        return found.ready if found is not None else ()

    def depth(self, queue: str) -> int | None:
        """Tell how much waits in *queue*; ``None`` if there is no such queue."""
        found = self._named().get(queue)
        return None if found is None else len(found.ready)

    def held(self, queue: str) -> int:
        """Tell how many messages of *queue* are delivered and not acknowledged."""
        found = self._named().get(queue)
        return found.held if found is not None else 0

    @property
    def listeners(self) -> int:
        """How many clients, watched runs and workers somebody listens for."""
        return self.notices.listeners + len(self._control)

    # What goes where.

    def prepare(self, command: Command) -> Callable[[], object]:
        """See that *command* can be sent, and tell what sends it.

        Raises:
            PayloadError, RetryDelayError: it cannot.
        """
        bytes_max = self.message_bytes_max
        match command:
            case ExecuteRun() | ExecuteTask():
                return self._prepare_order(command, codec.encode_command(command, bytes_max=bytes_max))
            case SendEvent():
                codec.encode_events([command.event], bytes_max=bytes_max)
                return partial(self._send_event, command.event)
            case ArmTimer():
                codec.encode_events([command.event], bytes_max=bytes_max)
                retry_name(command.delay_ms)
                return partial(self.retries.arm, command.event, delay_ms=command.delay_ms)
            case AnnounceAcceptance() | AnnounceOutcome() | AnnounceProgress():
                codec.encode_notice(command, bytes_max=bytes_max)
                return partial(self.notices.announce, command)
            case NotifyWorker():
                codec.encode_control(command, bytes_max=bytes_max)
                return partial(self._notify, command)
            case ParkDeadLetter():
                codec.encode_dead_letter(command.letter)
                return partial(self.dead_letters.put, command.letter)
            case _:
                assert_never(command)

    def reply(self, request: Request, answer: Answer) -> None:
        """Hand *answer* to who asked, if they are still there."""
        asker = self._brokers.get(request.reply_to)
        if asker is not None:
            asker.hear(request.correlation_id, answer)

    def _prepare_order(self, command: WorkerCommand, body: bytes) -> Callable[[], object]:
        try:
            queue = self.commands(command.queue)
        except InvalidNameError as error:  # One run that names nonsense must not hold up the others.
            why = UndecodableError("undeliverable", error.message)
            letter = codec.dead_letter_of(why, origin=COMMANDS, body=body, at=self._clock.now())
            workflow = command.workflow if isinstance(command, ExecuteRun) else None
            return partial(self.dead_letters.put, replace(letter, run_id=command.run_id, workflow=workflow))
        return partial(queue.put, command)

    def _send_event(self, event: Event) -> None:
        self.events(partition_of(event.run_id, self.partitions)).put((event,))

    def _notify(self, command: NotifyWorker) -> None:
        for queue in self._control.get(command.worker, ()):
            queue.put(command)

    def _park(self, origin: str, body: bytes, error: UndecodableError) -> None:
        letter: DeadLetter = codec.dead_letter_of(error, origin=origin, body=body, at=self._clock.now())
        self.dead_letters.put(letter)

    def _park_events(self, origin: str, body: bytes, error: UndecodableError) -> None:
        parts = codec.take_events_apart(body)
        for part in parts:
            self._named()[origin].put_raw(part)
        if not parts:
            self._park(origin, body, error)

    def _decoder(self, decode: Callable[..., T]) -> Callable[[bytes], T]:
        return partial(decode, bytes_max=self.message_bytes_max)

    def _decode_query(self, body: bytes) -> Request:
        # Whoever wrote it past the codec named no address: it is answered to nobody.
        return Request(codec.decode_query(body, bytes_max=self.message_bytes_max), reply_to="", correlation_id="")

    def _events_queue(self, partition: int) -> MemoryQueue[tuple[Event, ...]]:
        decode = self._decoder(codec.decode_events)
        return MemoryQueue(partition_queue(partition), decode=decode, park=self._park_events, single_active=True)

    def _named(self) -> Mapping[str, MemoryQueue[Any]]:
        control = [queue for queues in self._control.values() for queue in queues]
        every: list[MemoryQueue[Any]] = [*self._events, *control, self.queries, self.dead_letters]
        return {queue.name: queue for queue in every} | self._commands
