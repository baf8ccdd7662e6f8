"""The worker: takes the commands of the workflows and tasks that it has, and executes them.

What it promises: a command is acknowledged only when what follows from it is
confirmed; a run that may have been started by somebody else is not executed but
reported; whatever this worker may have lost, it lets go of at once.
"""

import asyncio
import os
import random
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast
from uuid import uuid4

from aiki.asynchronous import end
from aiki.engine.commands import ExecuteRun
from aiki.engine.queries import ReportPresence
from aiki.errors import BrokerError, ClientClosedError, ConfigurationError
from aiki.observability.logs import get_logger
from aiki.ports.broker import ClientBroker, WorkerBroker
from aiki.sdk.client import Client
from aiki.sdk.options import Duration, seconds
from aiki.sdk.registry import Registry
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow
from aiki.worker.crew import Crew
from aiki.worker.gate import Gate
from aiki.worker.presence import Presence
from aiki.worker.session import Session
from aiki.worker.surroundings import Surroundings, WorkerSettings
from aiki.worker.threads import Threads

__all__ = ["Worker", "WorkerSettings"]

log = get_logger(__name__)

# After the connection is lost, subscribing again is tried after this long, doubling up to the last one, with jitter.
PAUSE_FIRST, PAUSE_LAST = 0.05, 5.0

# What is given up at the end of a stop has this long to say so. Then its commands go back to their queues.
LETTING_GO_SECONDS = 5.0


class Worker:
    """Executes runs and tasks. Use it as ``async with``; inside, it works, and at the end it stops in order.

    It serves exactly the queues of the workflows (each version has its own) and tasks that it has, or
    those of *queues* if given. Several workers may serve the same queues, in one process too.
    """

    def __init__(
        self,
        client: Client,
        workflows: Iterable[Workflow[..., Any]] = (),
        tasks: Iterable[Task[..., Any]] = (),
        *,
        queues: Collection[str] | None = None,
        max_concurrent_runs: int = 100,
        name: str | None = None,
        shutdown_grace: Duration = 30.0,
        settings: WorkerSettings | None = None,
    ) -> None:
        """*settings* has the finer points; *max_concurrent_runs* and *shutdown_grace* count over it.

        Raises:
            ConfigurationError: the connection of *client* cannot take orders, or a number makes no sense.
            DuplicateNameError: two different workflows or tasks have one name.
        """
        if max_concurrent_runs < 1:
            raise ConfigurationError(f"max_concurrent_runs must be 1 or more, not {max_concurrent_runs!r}")
        grace = seconds("shutdown_grace", shutdown_grace, zero=True) or 0.0
        self._session: Session | None = None
        self._stopping = False
        self._stop_in_turn = asyncio.Lock()
        self.registry = _LiveRegistry(*workflows, *tasks, on_change=self._take_anew)
        self.settings = replace(
            settings or WorkerSettings(), max_concurrent_runs=max_concurrent_runs, shutdown_grace=grace
        )
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", name or "worker")[:40]
        self.name = f"{words}-{uuid4().hex[:12]}"
        self._client = client
        self._given_queues = None if queues is None else tuple(dict.fromkeys(queues))
        connection = client.connection
        self._surroundings = Surroundings(
            worker=self.name,
            broker=_taking_orders(connection.broker),
            publisher=connection.publisher,
            questions=connection.questions,
            clock=connection.clock,
            registry=self.registry,
            settings=self.settings,
            gate=Gate(),
            threads=Threads(threads_max=self.settings.threads_max),
            grace=grace,
        )
        self._crew = Crew(self._surroundings, on_leases=self._make_room)
        self._presence = Presence(connection.questions, connection.clock, self._report)
        self._started_at = connection.clock.now()
        self._tasks: list[asyncio.Task[None]] = []
        self._taking = asyncio.Event()
        self._ended: asyncio.Future[None] | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues whose commands this worker takes."""
        return self.registry.queues if self._given_queues is None else self._given_queues

    @property
    def held_runs(self) -> tuple[str, ...]:
        """The ids of the runs that it holds right now."""
        return self._crew.held_runs

    @property
    def orders(self) -> Mapping[str, ExecuteRun]:
        """The orders that it follows right now, by the ids of their runs."""
        return self._crew.orders

    async def __aenter__(self) -> Self:
        """Start, see ``start``."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to work; returns once commands are taken.

        Raises:
            ClientClosedError: the client is not open.
            ConfigurationError: there is nothing to serve, or it was started before.
        """
        self._client.connection.check_open()
        if self._ended is not None:
            raise ConfigurationError(f"worker {self.name} was started before", hint="make another one")
        if not self.queues:
            raise ConfigurationError(
                "this worker has nothing to serve", hint="give it workflows, or tasks with a queue of their own"
            )
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        serving = loop.create_task(self._serve(), name=f"aiki-{self.name}")
        self._tasks = [serving, *(loop.create_task(work) for work in (self._presence.keep(), self._watch_leases()))]
        serving.add_done_callback(self._on_served)

        taking = loop.create_task(self._taking.wait())
        await asyncio.wait({taking, serving}, return_when=asyncio.FIRST_COMPLETED)
        taking.cancel()
        if serving.done():
            await self._end()
            await serving
        log.info("worker.started", worker=self.name, queues=self.queues, slots=self.settings.max_concurrent_runs)

    async def run_until_stopped(self) -> None:
        """Wait until the worker has stopped, and raise what ended it, if that was an error."""
        if self._ended is None:
            raise ClientClosedError("the worker")
        await asyncio.shield(self._ended)

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop in order: take nothing more, let what executes end within *grace*, give the rest back.

        Whatever is given back goes on at once elsewhere. Safe to call twice; who calls again waits too, and
        goes on with it where the first one was cancelled.
        """
        if self._ended is None or self._ended.done():
            return
        async with self._stop_in_turn:
            if self._ended.done():
                return
            self._stopping = True
            if grace is not None:
                self._surroundings.grace = seconds("grace", grace, zero=True) or 0.0
            await self._stop_in_order()

    async def _stop_in_order(self) -> None:
        log.info("worker.stopping", worker=self.name, held=len(self.held_runs), grace=self._surroundings.grace)
        if self._session is not None:
            with suppress(BrokerError):
                await self._session.stop_taking()
        self._crew.hand_back()
        if not await self._crew.finish(timeout=self._surroundings.grace + LETTING_GO_SECONDS):
            log.warning("worker.grace_over", worker=self.name, runs=self.held_runs)
            self._crew.give_up()
            await self._crew.finish(timeout=LETTING_GO_SECONDS)
        await self._presence.leave()
        await self._end()

    async def abort(self) -> None:
        """Stop now: what is held goes back to the queues, and is recovered elsewhere."""
        if self._ended is None or self._ended.done():
            return
        self._stopping = True
        log.warning("worker.aborting", worker=self.name, runs=self.held_runs)
        self._crew.abandon(leased=True)
        await self._end()
        await self._crew.finish(timeout=LETTING_GO_SECONDS)

    async def _end(self) -> None:
        await end(*self._tasks)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
            log.info("worker.stopped", worker=self.name)

    async def _serve(self) -> None:
        """Take commands; whenever the connection is lost, let go of what it held, and begin again."""
        pause = PAUSE_FIRST
        while not self._stopping:
            session = Session(
                self._surroundings.broker,
                self.name,
                on_command=self._crew.on_command,
                on_notice=self._crew.on_notice,
            )
            try:
                queues, room = self.queues, self._room()
                await session.open(queues, room=room)
                self._session = session
                self._crew.catch_up()
                await self._catch_up(session, queues, room)
                self._taking.set()
                pause = PAUSE_FIRST
                await session.wait_until_lost()
            except BrokerError as error:
                abandoned = self._crew.abandon(leased=False)
                log.warning("worker.connection_lost", worker=self.name, error=error.message, abandoned=abandoned)
                self._crew.disown(abandoned)
            finally:
                self._session = None
                await session.close()
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(pause * 2, PAUSE_LAST)

    async def _catch_up(self, session: Session, queues: tuple[str, ...], room: int) -> None:
        """Tell a session what was said while it subscribed, which for a broker that is away takes for ever.

        A worker that stops and takes orders all the same would give each back, and be given it again.
        """
        if self._stopping:
            await session.stop_taking()
        elif (queues, room) != (self.queues, self._room()):
            self._take_anew()

    def _on_served(self, serving: asyncio.Task[None]) -> None:
        error = None if serving.cancelled() else serving.exception()
        if error is None or self._ended is None or self._ended.done():
            return
        log.error("worker.broke", worker=self.name, exc_info=error)
        self._crew.abandon(leased=True)
        self._ended.set_exception(error)
        self._ended.exception()  # Nobody may be waiting.

    async def _watch_leases(self) -> None:
        while True:
            await self._surroundings.clock.sleep(self.settings.lease_after / 10)
            self._crew.consider_leases()

    def _room(self) -> int:
        return max(self.settings.max_concurrent_runs - self._crew.leased, 0)

    async def _make_room(self) -> None:
        """A run under a lease takes a slot without an unacknowledged command: the broker must not fill it again."""
        log.info("worker.leases_changed", worker=self.name, leased=self._crew.leased)
        if (taking := self._take_anew()) is not None:
            await asyncio.wait({taking})

    def _take_anew(self) -> asyncio.Task[None] | None:
        if self._session is None or self._stopping:
            return None
        return self._session.take(self.queues, room=self._room())

    def _report(self) -> ReportPresence:
        return ReportPresence(
            worker=self.name,
            queues=self.queues,
            slots=self.settings.max_concurrent_runs,
            busy=self._crew.busy,
            host=socket.gethostname(),
            process_id=os.getpid(),
            started_at=self._started_at,
            seconds=0,
        )


class _LiveRegistry(Registry):
    """What a worker has. What is added while it works is served from then on."""

    def __init__(self, *definitions: Workflow[..., Any] | Task[..., Any], on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        super().__init__(*definitions)

    def add(self, *definitions: Workflow[..., Any] | Task[..., Any]) -> None:
        """Serve these too. Raises as ``Registry.add``."""
        super().add(*definitions)
        self._on_change()


def _taking_orders(broker: ClientBroker) -> WorkerBroker:
    if not hasattr(broker, "consume_commands"):
        raise ConfigurationError(
            "this client's connection can state and ask, but takes no orders",
            hint="workers connect to RabbitMQ, or run in the process of `aiki dev` or aiki.embedded()",
        )
    return cast(WorkerBroker, broker)
