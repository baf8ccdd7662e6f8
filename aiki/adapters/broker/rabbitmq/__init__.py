"""The broker on RabbitMQ, 3.10 up to 4.x."""

from aiki.adapters.broker.rabbitmq.admin import (
    BrokerReport,
    QueueReport,
    apply_topology,
    check_topology,
    delete_queue,
    inspect_broker,
)
from aiki.adapters.broker.rabbitmq.broker import RabbitBroker

__all__ = [
    "BrokerReport",
    "QueueReport",
    "RabbitBroker",
    "apply_topology",
    "check_topology",
    "delete_queue",
    "inspect_broker",
]
