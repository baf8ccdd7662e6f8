"""What arrives: messages as engine values, each kind by its own reader.

Every reader raises ``UndecodableError`` and nothing else. Only the one of the
dead letters never does: what it cannot read is a dead letter all the same.
"""

from collections.abc import Callable
from datetime import datetime

from aiki.adapters.broker.rabbitmq.subscription import Arrival
from aiki.codec.messages import (
    dead_letter_of,
    decode_command,
    decode_control,
    decode_dead_letter,
    decode_events,
    decode_notice,
    decode_query,
)
from aiki.codec.schema import ID_CHARACTERS_MAX
from aiki.engine.commands import DeadLetter, Notice, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.errors import UndecodableError
from aiki.ports.broker import Request

__all__ = ["read_command", "read_control", "read_dead_letter_at", "read_events", "read_notice", "read_request"]


def read_events(arrival: Arrival) -> tuple[Event, ...]:
    """Read the events of a message."""
    return decode_events(arrival.body)


def read_command(arrival: Arrival) -> WorkerCommand:
    """Read an order to a worker."""
    return decode_command(arrival.body)


def read_control(arrival: Arrival) -> NotifyWorker:
    """Read what one worker is told."""
    return decode_control(arrival.body)


def read_notice(arrival: Arrival) -> Notice:
    """Read a notice."""
    return decode_notice(arrival.body)


def read_request(arrival: Arrival) -> Request:
    """Read a query, and where its answer goes."""
    query = decode_query(arrival.body)
    reply_to, correlation_id = arrival.properties.reply_to, arrival.properties.correlation_id
    if not reply_to or not correlation_id:
        raise UndecodableError("no_reply_to", "the query does not say where its answer goes")
    return Request(query, reply_to=reply_to, correlation_id=correlation_id)


def read_dead_letter_at(now: Callable[[], datetime]) -> Callable[[Arrival], DeadLetter]:
    """Make the reader of dead letters, which stamps those that carry no time of their own with *now*."""

    def read_dead_letter(arrival: Arrival) -> DeadLetter:
        try:
            return decode_dead_letter(arrival.body)
        except UndecodableError as error:
            reason, origin = _death_of(arrival)
            why = error if reason is None else UndecodableError(reason, "RabbitMQ itself gave the message up")
            return dead_letter_of(why, origin=origin, body=arrival.body, at=now())

    return read_dead_letter


def _death_of(arrival: Arrival) -> tuple[str | None, str]:
    """Tell why the broker gave a message up and in which queue it was, as its last death says."""
    deaths = (arrival.properties.headers or {}).get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(last := deaths[0], dict):
        # Anybody can write this header. What the broker wrote is short.
        return str(last.get("reason"))[:ID_CHARACTERS_MAX], str(last.get("queue"))[:ID_CHARACTERS_MAX]
    return None, arrival.queue
