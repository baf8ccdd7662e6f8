"""What a client and its handles share: the way to say something, to ask, and to hear."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from aiki.engine.events import Event
from aiki.engine.payload import Payload
from aiki.engine.queries import Answer, Query
from aiki.errors import (
    AikiError,
    BrokerUnavailableError,
    ClientClosedError,
    EnqueueTimeoutError,
    PublishUncertainError,
)
from aiki.ports.broker import ClientBroker
from aiki.ports.clock import Clock
from aiki.sdk.handle import Handle
from aiki.sdk.outcomes import OutcomeListener
from aiki.sdk.publisher import EventPublisher
from aiki.sdk.questions import Questions

__all__ = ["Connection"]

R = TypeVar("R")
A = TypeVar("A", bound=Answer)

# How long starting waits to be able to hear outcomes. Later than that they are asked for.
LISTEN_SECONDS = 5.0


class Connection:
    """One process's connection to the engine, as far as applications need it."""

    def __init__(self, broker: ClientBroker, *, clock: Clock, client_id: str, timeout: float) -> None:
        self.broker = broker
        self.clock = clock
        self.client_id = client_id
        self.timeout = timeout
        self.publisher = EventPublisher(broker)
        self.questions = Questions(broker, timeout=timeout)
        self.listener = OutcomeListener(broker, client_id, self.questions.run, self.questions.run_patiently)
        self.is_open = False

    async def start(self, *, listen: bool) -> None:
        """Connect; with *listen*, hear of the outcomes of runs from the first one on.

        Raises:
            BrokerUnavailableError: the broker cannot be reached, or refuses us.
        """
        await self.broker.start()
        self.is_open = True
        if listen:
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_SECONDS):
                    await self.listener.start()

    async def close(self) -> None:
        """Let what was said be confirmed, within a bound, and disconnect. Safe to call twice."""
        self.is_open = False
        await self.publisher.close()
        await self.listener.close()
        await self.broker.close()

    def check_open(self) -> None:
        """Refuse to do anything before the connection is open and after it was closed.

        Raises:
            ClientClosedError: it is not open.
        """
        if not self.is_open:
            raise ClientClosedError

    async def tell(self, event: Event, what: str) -> None:
        """Say *event*; returns once the broker confirmed it. *what* names it in errors.

        Raises:
            EnqueueTimeoutError: that did not happen in time; it says whether it may have arrived.
            UnroutableError: the broker has no queue for it.
        """
        self.check_open()
        (error,) = await self.publisher.publish_all((event,), timeout=self.timeout)
        if error is not None:
            raise self.explain(error, event, what, self.timeout) from error

    async def ask(self, query: Query, kind: type[A]) -> A:
        """Ask an orchestrator. Raises as ``Questions.ask``."""
        self.check_open()
        return await self.questions.ask(query, kind)

    def explain(self, error: Exception, event: Event, what: str, timeout: float) -> AikiError:
        """Say of *what* why it was not published, and whether that is certain."""
        if isinstance(error, BrokerUnavailableError | PublishUncertainError):
            certain = isinstance(error, BrokerUnavailableError)
            return EnqueueTimeoutError(
                what, timeout=timeout, certain=certain, run_id=event.run_id, detail=error.message
            )
        return error if isinstance(error, AikiError) else AikiError(f"{what} cannot be sent: {error}")

    def handle(
        self,
        run_id: str,
        *,
        decode: Callable[[Payload], R],
        workflow: str | None = None,
        own: bool = False,
        fresh: bool = False,
    ) -> Handle[R]:
        """Make a handle. *own*: we started the run. *fresh*: nothing can have been said of it yet."""
        self.check_open()
        interest = self.listener.interest_in(run_id, fresh=fresh)
        return Handle(self, interest, decode=decode, workflow=workflow, own=own)
