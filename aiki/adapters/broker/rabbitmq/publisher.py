"""The publisher: sends over whatever link there is, and says truly what became of it.

A caller waits for a link as long as it is willing to. What was not written when a
link was lost goes out over the next one; what was written and not confirmed is
never sent again here, because only the caller knows whether that is harmless.
"""

import asyncio
from collections.abc import Mapping, Sequence

from aiki.adapters.broker.rabbitmq.declaring import ensure
from aiki.adapters.broker.rabbitmq.link import BLOCKED, BLOCKED_HINT, Link
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.adapters.broker.rabbitmq.windows import PublishChannel, Refusal, Submission
from aiki.asynchronous import end
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
        self._reopening: asyncio.Task[None] | None = None

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
        await end(self._reopening)
        if self._channel is not None:
            await self._channel.close("the broker was closed")

    async def open(self, link: Link) -> None:
        """Open the channel for *link*, before anybody else has it.

        Raises:
            BrokerUnavailableError: the link is gone.
        """
        channel = PublishChannel(await link.publishing_channel())
        link.on_lost(channel.lose)
        self._link, self._channel = link, channel

    async def _current(self) -> PublishChannel:
        while True:
            link = await self._supervisor.wait()
            if self._link is link and self._channel is not None and not self._channel.is_lost:
                return self._channel
            if self._reopening is None:
                self._reopening = asyncio.create_task(self._reopen(link), name="aiki-rabbitmq-reopen")
            # Whoever gives up waiting does not give up for the others.
            await asyncio.shield(self._reopening)

    async def _reopen(self, link: Link) -> None:
        """Make the channel of *link* again, which the broker closed alone: an exchange is missing, or not for us."""
        try:
            link.declared.clear()
            await ensure(link, self._topology)
            await self.open(link)
        except AikiError as error:
            link.lose(error.message)
        finally:
            self._reopening = None

    async def _too_late(self, submission: Submission | None, timeout: float) -> AikiError:
        link = self._supervisor.link
        if link is None:
            reason, hint = f"no connection to RabbitMQ ({self._supervisor.trouble})", "see `aiki doctor`"
        elif await link.is_blocked():
            reason, hint = BLOCKED, BLOCKED_HINT
        else:
            reason, hint = "RabbitMQ did not confirm in time", "it may be overloaded; see `aiki doctor`"
        if submission is None or submission.written == 0:
            return BrokerUnavailableError(f"nothing was sent within {timeout:g} s: {reason}", hint=hint)
        return PublishUncertainError(f"nothing was confirmed within {timeout:g} s: {reason}", hint=hint)
