"""The layout: which exchanges and queues there are, with which arguments, and why.

Brokers accept arguments that they do not know and ignore them, so everything
here is known to RabbitMQ 3.10, and nothing of it is deprecated in 4.x.
"""

from broker_topology.model import Argument, Binding, Exchange, Queue, Topology
from broker_topology.names import (
    COMMANDS,
    CONTROL,
    DEAD,
    DEAD_LETTERS,
    EVENTS,
    NOTICES,
    QUERIES,
    check_command_queue,
    check_word,
)
from broker_topology.retries import RETRY_GRID_MS, retry_name

__all__ = [
    "DELIVERY_LIMIT",
    "PARTITIONS_DEFAULT",
    "client_address",
    "command_queue",
    "control_queue",
    "notice_key",
    "notice_queue",
    "partition_key",
    "partition_queue",
    "retry_queue",
    "retry_queues",
    "topology",
    "watch_key",
]

PARTITIONS_DEFAULT = 8

# Practically never: what cannot be processed is parked by a decision of ours, not by a count of the
# broker's, whose meaning differs between versions. 4.x would apply 20 without it; 3.10 does not know
# -1; and without any limit a message that comes back goes to the end of its queue and order is lost.
DELIVERY_LIMIT = 1_000_000_000

# A query that nobody took for so long has no one waiting for its answer.
QUERY_TTL_MS = 60_000

_QUORUM: dict[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def _dead_lettering_to(exchange: str) -> dict[str, Argument]:
    """Say where messages go that a queue gives up, without ever losing one.

    At-least-once needs ``reject-publish``; without it the broker quietly falls back to at-most-once.
    """
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def partition_key(partition: int) -> str:
    """Tell the routing key of a partition."""
    return str(partition)


def partition_queue(partition: int) -> str:
    """Name the queue of a partition."""
    return f"{EVENTS}.{partition}"


def topology(partitions: int = PARTITIONS_DEFAULT) -> Topology:
    """Lay out what is always there. Queues of commands and retries come when they are first needed."""
    if partitions < 1:
        raise ValueError(f"there must be at least one partition, not {partitions}")

    events = [
        Queue(
            partition_queue(partition),
            # One active consumer keeps the order of a run; the next in line takes over when it goes.
            {**_QUORUM, "x-single-active-consumer": True, **_dead_lettering_to(DEAD)},
        )
        for partition in range(partitions)
    ]
    return Topology(
        exchanges=(
            Exchange(DEAD, "fanout"),  # What the broker dead-letters keeps its own routing key: any will do.
            Exchange(EVENTS, "direct"),
            Exchange(COMMANDS, "direct"),
            Exchange(NOTICES, "topic"),
            Exchange(CONTROL, "direct"),
            Exchange(QUERIES, "direct"),
        ),
        queues=(
            Queue(DEAD_LETTERS, _QUORUM),
            *events,
            # Nothing here is worth a disk write: who asks and gets no answer asks again. But a classic queue is on one
            # node, and while that is down it can be neither used nor declared: whoever connected would be refused.
            Queue(QUERIES, {**_QUORUM, "x-message-ttl": QUERY_TTL_MS}),
        ),
        bindings=(
            Binding(DEAD, DEAD_LETTERS),
            *(Binding(EVENTS, partition_queue(partition), partition_key(partition)) for partition in range(partitions)),
            Binding(QUERIES, QUERIES, QUERIES),
        ),
    )


def command_queue(name: str) -> Topology:
    """Lay out the queue of a workflow version (``<workflow>@<version>``), or of tasks sent to other workers.

    Raises:
        QueueNameError: no queue can have this name.
    """
    check_command_queue(name)
    return Topology(
        queues=(Queue(name, {**_QUORUM, **_dead_lettering_to(DEAD)}),),
        bindings=(Binding(COMMANDS, name, name),),
    )


def retry_queue(delay_ms: int) -> Topology:
    """Lay out where messages wait for *delay_ms*, and go back to their partition.

    It never expires: ``x-expires`` would delete it with its messages.

    Raises:
        RetryDelayError: the delay is not on the grid.
    """
    name = retry_name(delay_ms)
    return Topology(
        exchanges=(Exchange(name, "fanout"),),
        queues=(Queue(name, {**_QUORUM, "x-message-ttl": delay_ms, **_dead_lettering_to(EVENTS)}),),
        bindings=(Binding(name, name),),
    )


def retry_queues() -> Topology:
    """Lay out the whole grid, for those who want nothing to be declared when it is first needed."""
    return sum((retry_queue(delay_ms) for delay_ms in RETRY_GRID_MS), Topology())


def client_address(client: str) -> str:
    """Tell the routing key on ``aiki.notices`` of what is for one client.

    Raises:
        QueueNameError: the client's name cannot be part of a routing key.
    """
    return f"client.{check_word(client, what='client')}"


def notice_key(workflow: str, run_id: str, status: str) -> str:
    """Tell the routing key on ``aiki.notices`` of what happened to a run."""
    return f"{workflow}.{run_id}.{status}"


def watch_key(run_id: str) -> str:
    """Tell the binding key on ``aiki.notices`` for all that happens to a run."""
    return f"*.{check_word(run_id, what='run id')}.*"


def notice_queue(client: str, unique: str) -> Topology:
    """Lay out the queue of a client's notices, which goes with its connection.

    *unique* must differ on each connection: a lost one keeps its queue locked until the broker has noticed.
    """
    address = client_address(client)
    return _private_queue(f"{NOTICES}.{client}.{unique}", Binding(NOTICES, "", address))


def control_queue(worker: str, unique: str) -> Topology:
    """Lay out the queue of what is said to one worker, which goes with its connection."""
    check_word(worker, what="worker")
    return _private_queue(f"{CONTROL}.{worker}.{unique}", Binding(CONTROL, "", worker))


def _private_queue(name: str, binding: Binding) -> Topology:
    return Topology(
        # Classic by name: the default type of a virtual host may be quorum, and those cannot be exclusive.
        queues=(Queue(name, {"x-queue-type": "classic"}, durable=False),),
        bindings=(Binding(binding.exchange, name, binding.routing_key),),
    )
