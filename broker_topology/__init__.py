"""What is there in RabbitMQ: the one place that names exchanges, queues, bindings, arguments, policies and permissions.

Pure data that imports nothing of Aiki. The code declares from it, ``aiki topology``
applies, checks and exports it, and ``definitions.json`` beside this file, which
operators load into a broker, is made from it.
"""

from broker_topology.definitions import definitions, definitions_json, password_hash
from broker_topology.layout import (
    DELIVERY_LIMIT,
    PARTITIONS_DEFAULT,
    client_address,
    command_queue,
    control_queue,
    notice_key,
    notice_queue,
    partition_key,
    partition_queue,
    retry_queue,
    retry_queues,
    topology,
    watch_key,
)
from broker_topology.model import (
    Binding,
    Exchange,
    Permission,
    Policy,
    Queue,
    Role,
    TopicPermission,
    Topology,
)
from broker_topology.names import (
    COMMANDS,
    CONTROL,
    DEAD,
    DEAD_LETTERS,
    EVENTS,
    NOTICES,
    QUERIES,
    QueueNameError,
    RetryDelayError,
    check_command_queue,
    check_word,
)
from broker_topology.permissions import DECLARING, PERMISSIONS, TOPIC_PERMISSIONS, policies
from broker_topology.retries import RETRY_GRID_MS, retry_name

__all__ = [
    "COMMANDS",
    "CONTROL",
    "DEAD",
    "DEAD_LETTERS",
    "DECLARING",
    "DELIVERY_LIMIT",
    "EVENTS",
    "NOTICES",
    "PARTITIONS_DEFAULT",
    "PERMISSIONS",
    "QUERIES",
    "RETRY_GRID_MS",
    "TOPIC_PERMISSIONS",
    "Binding",
    "Exchange",
    "Permission",
    "Policy",
    "Queue",
    "QueueNameError",
    "RetryDelayError",
    "Role",
    "TopicPermission",
    "Topology",
    "check_command_queue",
    "check_word",
    "client_address",
    "command_queue",
    "control_queue",
    "definitions",
    "definitions_json",
    "notice_key",
    "notice_queue",
    "partition_key",
    "partition_queue",
    "password_hash",
    "policies",
    "retry_name",
    "retry_queue",
    "retry_queues",
    "topology",
    "watch_key",
]
