"""What to do about messages that no queue takes: which queue is missing, and which never can be there."""

from datetime import datetime

from aiki.adapters.broker.rabbitmq.outgoing import Outgoing, dead_letter_message
from aiki.codec.messages import dead_letter_of, encode_command
from aiki.engine.commands import Command, DeadLetter, ExecuteRun, ExecuteTask
from aiki.errors import UndecodableError
from broker_topology import COMMANDS, QueueNameError, Topology, check_command_queue, command_queue, retry_queue
from broker_topology.names import RETRY

__all__ = ["layout_for", "undeliverable"]


def layout_for(message: Outgoing, base: Topology) -> Topology:
    """Tell what has to be declared so that *message* finds a queue.

    Raises:
        QueueNameError: there can be no such queue.
    """
    if message.exchange == COMMANDS:
        return command_queue(message.routing_key)
    if message.exchange.startswith(f"{RETRY}."):
        return retry_queue(int(message.exchange.removeprefix(f"{RETRY}.")))
    if message.exchange == "" and not message.routing_key.startswith("aiki."):
        return command_queue(message.routing_key)  # Redelivered straight to where it was.
    return base


def undeliverable(command: Command, now: datetime) -> Outgoing | None:
    """Make a dead letter of a command whose queue cannot exist; ``None`` for every other command."""
    if not isinstance(command, ExecuteRun | ExecuteTask):
        return None
    try:
        check_command_queue(command.queue)
    except QueueNameError as error:
        why = UndecodableError("undeliverable", error.reason)
        found = dead_letter_of(why, origin=COMMANDS, body=encode_command(command), at=now)
        workflow = command.workflow if isinstance(command, ExecuteRun) else None
        return dead_letter_message(
            DeadLetter(
                id=found.id,
                reason=found.reason,
                at=found.at,
                origin=found.origin,
                body=found.body,
                detail=found.detail,
                run_id=command.run_id,
                workflow=workflow,
            )
        )
    return None
