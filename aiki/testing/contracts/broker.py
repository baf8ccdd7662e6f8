"""The contract of ``Broker``: what every adapter keeps, as tests.

An adapter's tests inherit ``BrokerContract`` and bring one fixture, ``system``: a
``BrokerSystem`` of their kind with nothing in it. The fixture closes the brokers that
the system made. The tests are coroutines; they need pytest-asyncio in its automatic mode.
"""

from aiki.testing.contracts.broker_parts.commands import CommandsContract, ControlContract
from aiki.testing.contracts.broker_parts.connection import ConnectionContract
from aiki.testing.contracts.broker_parts.dead_letters import DeadLettersContract
from aiki.testing.contracts.broker_parts.events import EventsContract, EventsOfTheEngineContract
from aiki.testing.contracts.broker_parts.notices import NoticesContract
from aiki.testing.contracts.broker_parts.queries import QueriesContract
from aiki.testing.contracts.broker_parts.system import BrokerSystem

__all__ = ["BrokerContract", "BrokerSystem"]


class BrokerContract(
    ConnectionContract,
    EventsContract,
    EventsOfTheEngineContract,
    CommandsContract,
    ControlContract,
    NoticesContract,
    QueriesContract,
    DeadLettersContract,
):
    """Everything that ``aiki.ports.broker`` promises."""
