"""Where each thing goes: engine values as messages with an exchange, a routing key and properties.

Bodies are JSON that a person can read in the management UI, and the properties
say beside them what the message is and which run it is about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from aiki.codec.messages import (
    encode_answer,
    encode_command,
    encode_control,
    encode_dead_letter,
    encode_events,
    encode_notice,
    encode_query,
)
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
)
from aiki.engine.events import Event, RunRequested, TimerFired
from aiki.engine.ids import partition_of
from aiki.engine.queries import Answer, Query, QueryFailed
from aiki.errors import PayloadTooLargeError, UnroutableError
from aiki.ports.broker import Request
from broker_topology import (
    COMMANDS,
    CONTROL,
    DEAD,
    EVENTS,
    NOTICES,
    QUERIES,
    QueueNameError,
    client_address,
    notice_key,
    partition_key,
    retry_name,
)

__all__ = [
    "NUDGE",
    "Outgoing",
    "answer_message",
    "command_message",
    "dead_letter_message",
    "event_messages",
    "events_message",
    "nudge_message",
    "query_message",
    "redelivered_message",
    "timer_messages",
]

DEFAULT_EXCHANGE = ""
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"

NUDGE = b'{"v":1,"type":"Nudge"}'
"""What is sent so that something is delivered. It says nothing."""

# A timer that is due takes 300 bytes.
TIMERS_MAX = 500

# A routing key that nothing is bound with.
NOBODY = "nobody"

# The broker refuses longer strings in properties; an id that long is none of ours, and no trace is.
_PROPERTY_BYTES_MAX = 255
_PRIORITY_MAX = 255

# The broker closes the channel over 50 days, and drops a query that nobody took after a minute anyway.
_EXPIRY_SECONDS_MAX = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message on its way to the broker."""

    exchange: str
    routing_key: str
    body: bytes
    type: str
    correlation_id: str | None = None
    kept: bool = True
    """Survive a restart of the broker."""
    returned: bool = True
    """Come back if no queue takes it. Otherwise it is for whoever listens."""
    trace: str | None = None
    copy_to: str | None = None
    """Another routing key on the same exchange; a queue that both lead to gets one copy."""
    reply_to: str | None = None
    expires_ms: int | None = None
    priority: int | None = None
    """Two levels on quorum queues since RabbitMQ 4.0 (5 and above are served first); ignored before."""


def events_message(partition: int, events: Sequence[Event]) -> Outgoing:
    """Write *events* as one message for the owner of *partition*."""
    first = events[0]
    alone = len(events) == 1
    return Outgoing(
        exchange=EVENTS,
        routing_key=partition_key(partition),
        body=encode_events(events),
        type=first.type if alone else "Events",
        correlation_id=_property(first.run_id) if alone or _are_of_one_run(events) else None,
        trace=_property(first.trace) if isinstance(first, RunRequested) else None,
    )


def nudge_message(partition: int) -> Outgoing:
    """Write what has the owner of *partition* given something, though there is nothing to say."""
    return Outgoing(exchange=EVENTS, routing_key=partition_key(partition), body=NUDGE, type="Nudge")


def command_message(command: Command, partitions: int) -> Outgoing:
    """Write *command* as a message to whoever it is for."""
    match command:
        case ExecuteRun() | ExecuteTask():
            return Outgoing(
                exchange=COMMANDS,
                routing_key=command.queue,
                body=encode_command(command),
                type=command.type,
                correlation_id=_property(command.run_id),
                trace=_property(command.trace),
                priority=_priority(command.priority) if isinstance(command, ExecuteRun) else None,
            )
        case SendEvent():
            return events_message(partition_of(command.event.run_id, partitions), (command.event,))
        case ArmTimer():
            return _timer_message(command, partitions)
        case AnnounceAcceptance() | AnnounceOutcome() | AnnounceProgress():
            return _notice_message(command)
        case NotifyWorker():
            return _control_message(command)
        case ParkDeadLetter():
            return dead_letter_message(command.letter)
        case _:
            assert_never(command)


def timer_messages(fired: Sequence[TimerFired], partitions: int) -> list[Outgoing]:
    """Write timers that are due as one message for each partition: after an outage, many are due at once."""
    by_partition: dict[int, list[Event]] = {}
    for event in fired:
        by_partition.setdefault(partition_of(event.run_id, partitions), []).append(event)
    return [
        events_message(partition, events[start : start + TIMERS_MAX])
        for partition, events in by_partition.items()
        for start in range(0, len(events), TIMERS_MAX)
    ]


def _timer_message(command: ArmTimer, partitions: int) -> Outgoing:
    event = command.event
    return Outgoing(
        exchange=retry_name(command.delay_ms),
        routing_key=partition_key(partition_of(event.run_id, partitions)),
        body=encode_events((event,)),
        type=event.type,
        correlation_id=_property(event.run_id),
    )


def _control_message(command: NotifyWorker) -> Outgoing:
    return Outgoing(
        exchange=CONTROL,
        routing_key=_property(command.worker) or NOBODY,
        body=encode_control(command),
        type=command.type,
        correlation_id=_property(command.run_id),
        kept=False,
        returned=False,
    )


def _notice_message(notice: AnnounceAcceptance | AnnounceOutcome | AnnounceProgress) -> Outgoing:
    address: str | None
    routing_key: str | None
    if isinstance(notice, AnnounceAcceptance):
        routing_key, address = _address(notice.client), None
    else:
        routing_key = _property(notice_key(notice.workflow, notice.run_id, notice.status.value))
        address = _address(notice.client) if isinstance(notice, AnnounceOutcome) else None
    return Outgoing(
        exchange=NOTICES,
        routing_key=routing_key or NOBODY,
        body=encode_notice(notice),
        type=notice.type,
        correlation_id=_property(notice.run_id),
        kept=False,
        returned=False,
        copy_to=address,
    )


def dead_letter_message(letter: DeadLetter) -> Outgoing:
    """Write *letter* as a message to the dead letters."""
    return Outgoing(
        exchange=DEAD,
        routing_key="",
        body=encode_dead_letter(letter),
        type="DeadLetter",
        correlation_id=_property(letter.run_id),
    )


def redelivered_message(letter: DeadLetter) -> Outgoing:
    """Write the original message of *letter* again, straight to the queue where it was found.

    Raises:
        UnroutableError: no queue can have the name that the letter gives.
    """
    if _property(letter.origin) is None:
        raise UnroutableError(DEFAULT_EXCHANGE, f"{letter.origin[:40]}…", hint="no queue has such a name; discard it")
    return Outgoing(
        exchange=DEFAULT_EXCHANGE,
        routing_key=letter.origin,
        body=letter.body.encode(),
        type="Redelivered",
        correlation_id=_property(letter.run_id),
    )


def event_messages(queue: str, bodies: Sequence[bytes]) -> list[Outgoing]:
    """Write encoded messages of one event each, straight to the *queue* where they were found together."""
    return [Outgoing(exchange=DEFAULT_EXCHANGE, routing_key=queue, body=body, type="Event") for body in bodies]


def query_message(query: Query, *, correlation_id: str, timeout: float) -> Outgoing:
    """Write *query* as a message to any orchestrator, worth answering for *timeout* seconds."""
    return Outgoing(
        exchange=QUERIES,
        routing_key=QUERIES,
        body=encode_query(query),
        type=query.type,
        correlation_id=correlation_id,
        kept=False,
        reply_to=DIRECT_REPLY_TO,
        expires_ms=max(1, round(min(timeout, _EXPIRY_SECONDS_MAX) * 1000)),
    )


def answer_message(request: Request, answer: Answer) -> Outgoing:
    """Write *answer* as a message to whoever asked. One that is too large becomes a failure that says so."""
    try:
        body = encode_answer(answer)
    except PayloadTooLargeError as error:
        answer = QueryFailed(reason=error.message)
        body = encode_answer(answer)
    return Outgoing(
        exchange=DEFAULT_EXCHANGE,
        routing_key=request.reply_to,
        body=body,
        type=answer.type,
        correlation_id=request.correlation_id,
        kept=False,
        returned=False,
    )


def _address(client: str | None) -> str | None:
    """Tell the address of a client. A name that cannot be one is nobody's: it must not stop the rest of a batch."""
    try:
        return None if client is None else client_address(client)
    except QueueNameError:
        return None


def _are_of_one_run(events: Sequence[Event]) -> bool:
    run_id = events[0].run_id
    return all(event.run_id == run_id for event in events)


def _priority(number: int) -> int | None:
    return min(number, _PRIORITY_MAX) if number > 0 else None


def _property(text: str | None) -> str | None:
    return text if text is not None and len(text.encode()) <= _PROPERTY_BYTES_MAX else None
