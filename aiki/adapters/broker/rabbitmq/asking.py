"""Asking: queries to any orchestrator, answered through the broker's direct reply-to.

No queue is made for an answer: the broker hands it straight to the channel that
asked. So a query whose link is lost has no answer, and is asked again.
"""

import asyncio
from uuid import uuid4

from pamqp import commands
from pamqp.header import ContentHeader

from aiki.adapters.broker.rabbitmq.deliveries import collect_deliveries
from aiki.adapters.broker.rabbitmq.link import Link
from aiki.adapters.broker.rabbitmq.outgoing import DIRECT_REPLY_TO, query_message
from aiki.adapters.broker.rabbitmq.trouble import talking
from aiki.adapters.broker.rabbitmq.windows import PublishChannel
from aiki.codec.messages import decode_answer
from aiki.engine.queries import Answer, Query
from aiki.errors import BrokerUnavailableError, PublishUncertainError, QueryTimeoutError, UndecodableError

__all__ = ["Asker"]

RPC_SECONDS = 15.0


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
        callback = collect_deliveries(channel, asker._arrive)
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
            if await self._publish.is_blocked():
                raise BrokerUnavailableError(
                    "RabbitMQ is short of memory or disk space and takes no messages"
                ) from None
            raise QueryTimeoutError(timeout=timeout) from None
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

    def _arrive(self, _deliver: commands.Basic.Deliver, header: ContentHeader, body: bytes) -> None:
        answered = self._pending.get(header.properties.correlation_id or "")
        if answered is not None and not answered.done():
            answered.set_result(body)
