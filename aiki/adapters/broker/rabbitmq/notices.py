"""Notices for one client, over a queue of its own; each run that it watches is a binding."""

from collections.abc import Collection

from aiki.adapters.broker.rabbitmq.declaring import RPC_SECONDS
from aiki.adapters.broker.rabbitmq.subscription import RabbitSubscription
from aiki.engine.commands import Notice
from aiki.errors import InvalidNameError
from aiki.ports.broker import NoticeSubscription
from broker_topology import NOTICES, QueueNameError, watch_key

__all__ = ["RabbitNotices"]


class RabbitNotices(RabbitSubscription[Notice], NoticeSubscription):
    """What is addressed to a client, and what it watches. Gone with its connection."""

    _queue = ""

    async def _start(self, queues: Collection[str], prefetch: int) -> None:
        (self._queue,) = queues
        await super()._start(queues, prefetch)

    async def watch(self, run_id: str) -> None:
        """Bind the run; once the broker has said so, every later notice of it is routed here."""
        self._check()
        await self._ask("watch a run", self._bind(_key(run_id)))

    async def unwatch(self, run_id: str) -> None:
        """Unbind the run."""
        self._check()
        await self._ask("stop watching a run", self._unbind(_key(run_id)))

    async def _bind(self, key: str) -> None:
        await self._channel.queue_bind(self._queue, NOTICES, key, timeout=RPC_SECONDS)

    async def _unbind(self, key: str) -> None:
        await self._channel.queue_unbind(self._queue, NOTICES, key, timeout=RPC_SECONDS)


def _key(run_id: str) -> str:
    try:
        return watch_key(run_id)
    except QueueNameError as error:
        raise InvalidNameError("run", error.name, reason=error.reason) from error
