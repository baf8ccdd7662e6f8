"""Asking: queries to any orchestrator, answered through the broker's direct reply-to.

No queue is made for an answer: the broker hands it straight to the channel that
asked. So a query whose link is lost has no answer, and is asked again.
"""

import asyncio
from uuid import uuid4

from aiki.adapters.broker.rabbitmq.link import BLOCKED, BLOCKED_HINT, Link
from aiki.adapters.broker.rabbitmq.outgoing import DIRECT_REPLY_TO, query_message
from aiki.adapters.broker.rabbitmq.supervisor import Supervisor
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.adapters.broker.rabbitmq.waiting import Deadline
from aiki.adapters.broker.rabbitmq.windows import PublishChannel
from aiki.adapters.broker.rabbitmq.wire import Delivered
from aiki.asynchronous import end
from aiki.codec.messages import decode_answer
from aiki.engine.queries import Answer, Query
from aiki.errors import AikiError, BrokerUnavailableError, PublishUncertainError, QueryTimeoutError, UndecodableError

__all__ = ["Askers"]

RPC_SECONDS = 15.0


async def no_answer(link: Link, timeout: float) -> AikiError:
    """Say why there was no answer in time."""
    return (
        BrokerUnavailableError(BLOCKED, hint=BLOCKED_HINT)
        if await link.is_blocked()
        else QueryTimeoutError(timeout=timeout)
    )


class Asker:
    """Asks over one link, and ends with it. Made by ``open``."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._publish: PublishChannel | None = None
        self._pending: dict[str, asyncio.Future[bytes]] = {}

    @classmethod
    async def open(cls, link: Link) -> "Asker":
        """Open a channel to ask over.

        Raises:
            BrokerUnavailableError: the link is gone.
        """
        asker = cls(link)
        channel = await link.publishing_channel()
        callback = link.collect(channel, asker._arrive)
        with talking("ask"):
            # The reply address belongs to the channel that consumes from it, before it asks.
            await channel.basic_consume(DIRECT_REPLY_TO, callback, no_ack=True, timeout=RPC_SECONDS)
        asker._publish = PublishChannel(channel)
        asker._publish.closing.add_done_callback(lambda _: asker.lose("the connection was lost"))
        link.on_lost(asker.lose)
        return asker

    @property
    def is_lost(self) -> bool:
        """Whether it can ask no more."""
        return self.link.is_lost or self._publish is None or self._publish.is_lost

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Ask, and wait for the answer. Raises as the port says."""
        if self._publish is None:
            raise BrokerUnavailableError("the connection was lost")
        correlation_id = uuid4().hex
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[correlation_id] = answered
        submission = self._publish.submit((query_message(query, correlation_id=correlation_id, timeout=timeout),))
        try:
            async with asyncio.timeout(timeout):
                if await submission.done:
                    raise BrokerUnavailableError("there is no queue for queries", hint="run `aiki topology apply`")
                return decode_answer(await answered)
        except TimeoutError:
            raise await no_answer(self.link, timeout) from None
        except PublishUncertainError as error:
            raise BrokerUnavailableError(f"there is no answer: {error.message}") from error
        except UndecodableError as error:
            raise BrokerUnavailableError(f"the answer cannot be read: {error.message}", hint=error.hint) from error
        finally:
            submission.withdraw()
            answered.cancel()
            del self._pending[correlation_id]

    async def close(self) -> None:
        """Ask no more."""
        self.lose("the broker was closed")
        if self._publish is not None:
            await self._publish.close("the broker was closed")

    def lose(self, reason: str) -> None:
        """End every question: there will be no answer."""
        if self._publish is not None:
            self._publish.lose(reason)
        for answered in self._pending.values():
            if not answered.done():
                answered.set_exception(BrokerUnavailableError(f"there is no answer: {reason}"))
                answered.exception()  # Whoever asked may have left; that is no error.

    def _arrive(self, delivered: Delivered) -> None:
        answered = self._pending.get(delivered.properties.correlation_id or "")
        if answered is not None and not answered.done():
            answered.set_result(delivered.body)


class Askers:
    """The asker of the present link, opened when something is first asked over it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asker: Asker | None = None
        self._opening: asyncio.Task[Asker] | None = None

    async def ask(self, query: Query, *, timeout: float) -> Answer:
        """Wait for a link, and ask over it. Raises as the port says."""
        deadline = Deadline(timeout)
        link = await self._supervisor.current(timeout=timeout)
        try:
            async with asyncio.timeout(deadline.left):
                asker = await self._asker_of(link)
        except TimeoutError:
            raise await no_answer(link, timeout) from None
        return await asker.ask(query, timeout=deadline.left)

    async def close(self) -> None:
        """Ask no more."""
        await end(self._opening)
        if self._asker is not None:
            await self._asker.close()

    async def _asker_of(self, link: Link) -> Asker:
        if self._asker is not None and self._asker.link is link and not self._asker.is_lost:
            return self._asker
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(link), name="aiki-rabbitmq-asker")
        # Whoever gives up waiting does not give up for the others.
        return await asyncio.shield(self._opening)

    async def _open(self, link: Link) -> Asker:
        try:
            self._asker = await Asker.open(link)
            return self._asker
        finally:
            self._opening = None
