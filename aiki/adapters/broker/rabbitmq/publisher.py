"""The publisher: sends over whatever link there is, and says truly what became of it.

A caller waits for a link as long as it is willing to. What was not written when a
link was lost goes out over the next one; what was written and not confirmed is
never sent again here, because only the caller knows whether that is harmless.
"""

import asyncio
from collections.abc import Mapping, Sequence

from aiki.adapters.broker.rabbitmq.declaring import ensure
from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.adapters.broker.rabbitmq.windows import PublishChannel, Refusal, Submission
from aiki.errors import AikiError, BrokerUnavailableError, PublishUncertainError
from broker_topology import Topology

__all__ = ["Publisher"]


class Publisher:
    """Publishes over one channel per link."""

    def __init__(self, supervisor: Supervisor, topology: Topology) -> None:
        self._supervisor = supervisor
        self._topology = topology
        self._link: Link | None = None
        self._channel: PublishChannel | None = None
        self._opening = asyncio.Lock()

    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> Mapping[int, Refusal]:
        """Publish *messages* and tell, by index, what the broker did not take.

        Raises:
            BrokerUnavailableError: nothing was sent.
            PublishUncertainError: any of them may have arrived.
        """
        if not messages:
            return {}
        submission: Submission | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    channel = await self._current()
                    submission = channel.submit(messages)
                    try:
                        return await submission.done
                    except BrokerUnavailableError:
                        continue  # The link went before anything was written: the next one will do.
        except TimeoutError:
            raise await self._too_late(submission, timeout) from None
        finally:
            if submission is not None:
                submission.withdraw()

    async def close(self) -> None:
        """End what is under way."""
        if self._channel is not None:
            await self._channel.close("the broker was closed")

    async def _current(self) -> PublishChannel:
        while True:
            link = await self._supervisor.wait()
            if self._is_open(link):
                break
            async with self._opening:
                if not self._is_open(link):
                    await self._open(link)
        assert self._channel is not None
        return self._channel

    def _is_open(self, link: Link) -> bool:
        return self._link is link and self._channel is not None and not self._channel.is_lost

    async def _open(self, link: Link) -> None:
        try:
            if self._link is link:
                # The broker closed the channel alone: an exchange is missing, or not for us. See what is there.
                link.declared.clear()
                await ensure(link, self._topology)
            channel = PublishChannel(await link.publishing_channel())
        except AikiError as error:
            link.lose(error.message)
            return
        self._link, self._channel = link, channel
        link.on_lost(channel.lose)

    async def _too_late(self, submission: Submission | None, timeout: float) -> AikiError:
        channel = self._channel
        if channel is None or self._supervisor.link is None:
            reason, hint = f"no connection to RabbitMQ ({self._supervisor.trouble})", "see `aiki doctor`"
        elif await channel.is_blocked():
            reason = "RabbitMQ is short of memory or disk space and takes no messages"
            hint = "see `rabbitmqctl status` for the alarm; it goes on by itself when there is room again"
        else:
            reason, hint = "RabbitMQ did not confirm in time", "it may be overloaded; see `aiki doctor`"
        if submission is None or submission.written == 0:
            return BrokerUnavailableError(f"nothing was sent within {timeout:g} s: {reason}", hint=hint)
        return PublishUncertainError(f"nothing was confirmed within {timeout:g} s: {reason}", hint=hint)
