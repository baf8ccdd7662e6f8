"""Sending: publishing that mends what is missing on the way, and raises what the port promises."""

from collections.abc import Mapping, Sequence

from aiki.adapters.broker.rabbitmq.declaring import declare
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.publisher import Publisher
from aiki.adapters.broker.rabbitmq.repairs import layout_for
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.adapters.broker.rabbitmq.waiting import Deadline, apart
from aiki.adapters.broker.rabbitmq.windows import Refusal
from aiki.errors import BrokerUnavailableError, ConfigurationError, PublishUncertainError, UnroutableError
from aiki.observability import get_logger
from broker_topology import QueueNameError, Topology

__all__ = ["Sender"]

log = get_logger(__name__)


class Sender:
    """Sends messages so that they arrive, or says that they did not."""

    def __init__(self, publisher: Publisher, supervisor: Supervisor, topology: Topology) -> None:
        self._publisher = publisher
        self._supervisor = supervisor
        self._topology = topology

    async def deliver(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publish *messages*; declare the queues of those that none took, and publish these again.

        A message that came back as unroutable is nowhere, so publishing it again cannot double it.

        Raises:
            BrokerUnavailableError: nothing was sent.
            PublishUncertainError: any of them may have arrived.
            UnroutableError: one has no queue, and none can be made.
        """
        deadline = Deadline(timeout)
        refused = await self._publisher.publish(messages, timeout=timeout)
        if not refused:
            return
        _raise_if_nacked(refused)
        unroutable = [messages[index] for index in sorted(refused)]
        try:
            await apart(self._mend(unroutable, deadline))
            refused = await self._publisher.publish(unroutable, timeout=deadline.left)
        except BrokerUnavailableError as error:
            if len(unroutable) == len(messages):
                raise
            raise PublishUncertainError(f"only some were sent: {error.message}", hint=error.hint) from error
        _raise_if_nacked(refused)
        for index in refused:
            raise UnroutableError(unroutable[index].exchange, unroutable[index].routing_key)

    async def _mend(self, unroutable: Sequence[Outgoing], deadline: Deadline) -> None:
        link = await self._supervisor.current(timeout=deadline.left)
        for message in {(message.exchange, message.routing_key): message for message in unroutable}.values():
            try:
                await declare(link, layout_for(message, self._topology))
            except ConfigurationError as error:
                raise UnroutableError(message.exchange, message.routing_key, hint=error.message) from error
            except QueueNameError as error:
                raise UnroutableError(message.exchange, message.routing_key, hint=error.reason) from error
            log.info("broker.queue_declared", exchange=message.exchange, routing_key=message.routing_key)


def _raise_if_nacked(refused: Mapping[int, Refusal]) -> None:
    if Refusal.NACKED in refused.values():
        raise PublishUncertainError(
            "RabbitMQ could not confirm that a queue kept a message",
            hint="a queue may have lost its leader, or the majority of its members; see `rabbitmq-queues`",
        )
