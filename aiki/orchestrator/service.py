"""The orchestrator as a service: its parts, started and stopped in order."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiki.asynchronous import end
from aiki.engine.commands import DeadLetter
from aiki.engine.events import Event
from aiki.errors import ConfigurationError, StoreUnavailableError
from aiki.observability import get_logger
from aiki.orchestrator.committer import Committer
from aiki.orchestrator.consumer import Consumer
from aiki.orchestrator.expiry import Expiry
from aiki.orchestrator.health import HealthEndpoint
from aiki.orchestrator.letters import LetterKeeper
from aiki.orchestrator.ownership import Ownership
from aiki.orchestrator.partition import PartitionOwner
from aiki.orchestrator.patience import Backoff, StorePatience
from aiki.orchestrator.queries import QueryAnswerer
from aiki.orchestrator.repair import RepairSweep
from aiki.orchestrator.services import Services
from aiki.orchestrator.settings import OrchestratorSettings
from aiki.orchestrator.stats import Stats
from aiki.orchestrator.timers import Timers
from aiki.ports.broker import OrchestratorBroker, Request
from aiki.ports.clock import Clock
from aiki.ports.store import Store

__all__ = ["Orchestrator"]

log = get_logger(__name__)

_RETIRE_SECONDS = 2.0


class Orchestrator:
    """Moves runs forward: consumes events, decides, stores, sends what follows.

    Any number may run on one broker and one store. Both are handed over started, and stay
    the caller's to close, after ``stop``. Killed at any moment, it loses nothing: what it had not finished is
    delivered to the next one.
    """

    def __init__(
        self,
        broker: OrchestratorBroker,
        store: Store,
        clock: Clock,
        settings: OrchestratorSettings | None = None,
    ) -> None:
        self.settings = settings or OrchestratorSettings()
        self.name = self.settings.name or _made_up_name()
        self.stats = Stats()
        self._broker = broker
        self._store = store
        self._clock = clock
        self._started_at = clock.now()
        self._patience = StorePatience(
            clock, retry_delay=self.settings.retry_delay, retry_delay_max=self.settings.retry_delay_max
        )
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._task: asyncio.Task[None] | None = None
        self._health: HealthEndpoint | None = None

        services = Services(broker, store, clock, self.settings, self.stats, self._patience)
        self._committer = Committer(store, self.stats, changes_max=self.settings.commit_changes)
        self._timers = Timers(services)
        self._sweep = RepairSweep(services)
        self._expiry = Expiry(services)
        self._partitions = [self._partition(number, services) for number in range(broker.partitions)]
        self._queries = self._query_consumer(QueryAnswerer(services))
        self._letters = self._letter_consumer(LetterKeeper(services))
        self._ownership = Ownership(
            self.name, services, consumers=self._partitions, facts=self._facts, on_change=self._assign_timers
        )

    def _partition(self, number: int, services: Services) -> Consumer[tuple[Event, ...]]:
        owner = PartitionOwner(number, services, committer=self._committer, timers=self._timers)
        return Consumer(
            f"partition {number}",
            subscribe=owner.subscribe,
            handle=owner.handle,
            split=owner.split,
            may_wait=owner.may_wait,
            company=self.settings.company,
            company_max=self.settings.prefetch // 2,
            on_first=self._assign_timers,
            clock=self._clock,
            backoff=self._backoff(),
            stats=self.stats,
        )

    def _query_consumer(self, answerer: QueryAnswerer) -> Consumer[Request]:
        return Consumer(
            "queries",
            subscribe=answerer.subscribe,
            handle=answerer.handle,
            clock=self._clock,
            backoff=self._backoff(),
            stats=self.stats,
        )

    def _letter_consumer(self, keeper: LetterKeeper) -> Consumer[DeadLetter]:
        return Consumer(
            "dead letters",
            subscribe=keeper.subscribe,
            handle=keeper.handle,
            clock=self._clock,
            backoff=self._backoff(),
            stats=self.stats,
        )

    def _backoff(self) -> Backoff:
        return Backoff(self.settings.retry_delay, self.settings.retry_delay_max)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that it takes care of: those it should own, and those it was given events of."""
        return self._ownership.preferred | self.active

    @property
    def active(self) -> frozenset[int]:
        """The partitions that it was given events of since it last subscribed to them."""
        return frozenset(number for number, consumer in enumerate(self._partitions) if consumer.has_deliveries)

    @property
    def health_port(self) -> int | None:
        """The port of the health endpoint, where there is one."""
        return None if self._health is None else self._health.port

    async def start(self) -> None:
        """Begin. Returns once everything is under way.

        Raises:
            ConfigurationError: the store was set up with another number of partitions, or the health
                endpoint cannot listen.
            StoreUnavailableError: the store cannot be read.
        """
        if self._task is not None:
            return
        stored = await self._store.partitions(self._broker.partitions)
        if stored != self._broker.partitions:
            raise ConfigurationError(
                f"the store was set up with {stored} partitions, this orchestrator with {self._broker.partitions}",
                hint=f"set AIKI_PARTITIONS={stored}; changing the number takes drained queues",
            )
        if self.settings.health is not None:
            host, port = self.settings.health
            self._health = HealthEndpoint(host, port, report=self.report)
            await self._health.start()
        self._assign_timers()
        self._task = asyncio.create_task(self._serve(), name=f"orchestrator {self.name}")
        log.info("orchestrator.started", name=self.name, partitions=stored)

    async def run(self) -> None:
        """Start, and go on until ``stop`` is called; when cancelled, stop in order."""
        await self.start()
        await self.wait()

    async def wait(self) -> None:
        """Wait until it has stopped. Raises what ended it, if that was a fault of its own."""
        if self._task is None:
            return
        try:
            await asyncio.shield(self._task)
        finally:
            await self.stop()

    async def stop(self, grace: float = 10.0) -> None:
        """Take nothing more, finish and acknowledge what is in hand within *grace* seconds, and go.

        What is not finished by then is given back, and somebody else does it. Safe to call twice.
        """
        task = self._task
        if task is None:
            return
        self._grace = grace
        self._stopping.set()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # Said in the log when it happened, and raised by ``wait``.
        if self._health is not None:
            await self._health.close()
            self._health = None

    def report(self) -> Mapping[str, Any]:
        """Tell how it is, for the health endpoint: ``ready`` when broker and store can be used."""
        connected = self._broker.is_connected
        running = self._task is not None and not self._task.done() and not self._stopping.is_set()
        return {
            "ready": running and connected and self._patience.is_store_up,
            "name": self.name,
            "connected": connected,
            "store": self._patience.is_store_up,
            "partitions": sorted(self.owned),
            "orchestrators": list(self._ownership.members),
            "timers": len(self._timers),
            "stats": self.stats.as_dict(),
        }

    async def _serve(self) -> None:
        consumers: tuple[Consumer[Any], ...] = (*self._partitions, self._queries, self._letters)
        work = [consumer.run() for consumer in consumers]
        work += [self._committer.run(), self._timers.run(), self._ownership.run()]
        work += [self._sweep.run(), self._expiry.run()]
        tasks = [asyncio.ensure_future(coroutine) for coroutine in (*work, self._stopping.wait())]
        try:
            # Before it is told to stop, only a fault of its own ends one of them, and then it ends the others.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                await self._finish(consumers)
        finally:
            await end(*tasks)
            await self._retire()
            log.info("orchestrator.stopped", name=self.name)
        for task in tasks:
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error("orchestrator.failed", name=self.name, exc_info=fault)
                raise fault

    async def _finish(self, consumers: Sequence[Consumer[Any]]) -> None:
        """Let everybody finish what they have in hand, as long as the grace lasts."""
        try:
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*(consumer.stop() for consumer in consumers))
        except TimeoutError:
            log.warning("orchestrator.grace_over", name=self.name, in_hand=self.stats.in_hand)

    async def _retire(self) -> None:
        try:
            async with asyncio.timeout(_RETIRE_SECONDS):
                await self._ownership.retire()
        except (StoreUnavailableError, TimeoutError):
            log.info("orchestrator.not_retired", name=self.name, expires_in=self.settings.presence)

    def _assign_timers(self) -> None:
        self._timers.assign(self.owned)

    def _facts(self) -> Mapping[str, Any]:
        return {
            "host": socket.gethostname(),
            "process_id": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "partitions": sorted(self.owned),
        }


def _made_up_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
