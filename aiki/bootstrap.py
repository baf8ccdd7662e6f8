"""From settings to a connected client, worker or orchestrator: the only place that picks adapters.

Drivers are imported where they are needed: a client never loads MongoDB's, and
nothing here loads either before somebody connects.
"""

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiki.adapters.broker.socket import SocketBroker, SocketServer, is_served, socket_path
from aiki.adapters.clock import SystemClock
from aiki.config import Settings, load_settings
from aiki.errors import ConfigurationError
from aiki.ports.broker import Broker, ClientBroker
from aiki.ports.store import Store
from aiki.sdk.client import Client as BrokerClient
from aiki.sdk.options import Duration
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow

if TYPE_CHECKING:
    from aiki.orchestrator.rebuild import RebuildReport
    from aiki.orchestrator.service import Orchestrator
    from aiki.orchestrator.settings import OrchestratorSettings
    from aiki.worker.service import Worker

__all__ = [
    "DEFAULT_AMQP_URL",
    "Client",
    "Dev",
    "amqp_url",
    "broker_url",
    "connect_client",
    "embedded",
    "is_embedded",
    "make_broker",
    "make_store",
    "rebuild_queues",
    "running_dev",
    "running_orchestrator",
    "running_worker",
]

DEFAULT_AMQP_URL = "amqp://localhost"

_EMBEDDED = "embedded:"

# Partitions let several orchestrators share the work, and in one process there is a single one. With one, what is
# under way travels, is decided and is stored together, and a run takes a sixth less CPU (docs/decisions/0102).
_PARTITIONS_ALONE = 1


class Client(BrokerClient):
    """An application's way to the engine, wherever that is. Use it as ``async with Client.connect(...) as client``."""

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        name: str | None = None,
        timeout: Duration | None = None,
        partitions: int | None = None,
        listen: bool = True,
    ) -> Self:
        """Make the client of the engine behind *url*: ``amqp://…``, or ``embedded:PATH`` for a running `aiki dev`.

        What is not given comes from the settings (``AIKI_AMQP_URL``, ``AIKI_TIMEOUT``, ``AIKI_PARTITIONS``).

        Raises:
            ConfigurationError: a setting is wrong.
        """
        given = {"amqp_url": url, "timeout": timeout, "partitions": partitions}
        settings = load_settings(overrides={key: value for key, value in given.items() if value is not None})
        return cls._of(settings, name=name, listen=listen)

    @classmethod
    def _of(cls, settings: Settings, *, name: str | None, listen: bool) -> Self:
        broker = _client_broker(settings, name=name or _process_name("client"))
        return cls(broker, clock=SystemClock(), name=name, timeout=settings.timeout, listen=listen)


def connect_client(settings: Settings, *, name: str | None = None, listen: bool = True) -> Client:
    """Make the client that *settings* describe."""
    return Client._of(settings, name=name, listen=listen)


def broker_url(settings: Settings) -> str:
    """Tell which broker *settings* mean. Where they do not say: a running `aiki dev`, else the local RabbitMQ."""
    if settings.amqp_url is not None:
        return settings.amqp_url
    return f"{_EMBEDDED}{settings.data_path()}" if is_served(settings.data_path()) else DEFAULT_AMQP_URL


def is_embedded(url: str) -> bool:
    """Tell whether *url* means an engine in another process of this machine."""
    return url.startswith(_EMBEDDED)


def amqp_url(settings: Settings) -> str:
    """Tell which RabbitMQ *settings* mean, for what needs one.

    Raises:
        ConfigurationError: they mean an embedded engine, which has everything inside.
    """
    url = settings.amqp_url or DEFAULT_AMQP_URL
    if is_embedded(url):
        raise ConfigurationError(
            "this needs a RabbitMQ, and the broker is an embedded engine",
            hint="`aiki dev` has a worker and an orchestrator inside; for several processes set AIKI_AMQP_URL",
        )
    return url


def make_broker(settings: Settings, *, name: str) -> Broker:
    """Make the broker for a worker or an orchestrator.

    Raises:
        ConfigurationError: the settings mean an embedded engine, which has both inside.
    """
    from aiki.adapters.broker.rabbitmq import RabbitBroker

    return RabbitBroker(amqp_url(settings), partitions=settings.partitions, name=name, heartbeat=settings.heartbeat)


def make_store(settings: Settings) -> Store:
    """Make the store for an orchestrator."""
    from aiki.adapters.store.mongodb import MongoStore

    return MongoStore(settings.mongodb_url, database=settings.mongodb_database)


@asynccontextmanager
async def embedded(
    path: str | PathLike[str] | None = None,
    *,
    name: str | None = None,
    timeout: Duration = timedelta(seconds=30),
    retention: Duration = timedelta(days=30),
) -> AsyncIterator[Client]:
    """Run the whole engine in this process, without servers, and give its client.

    With *path*, runs are kept in that file and survive the process, however it ends: the next one that
    opens the file goes on with them. Without, they are gone with it.

    Raises:
        StoreUnavailableError: another process owns the file.
        ConfigurationError: the file is none of ours.
    """
    async with _engine(path, retention=_timedelta(retention)) as engine:
        broker = engine.connect()
        async with Client(broker, clock=SystemClock(), name=name, timeout=timeout) as client:
            yield client


@asynccontextmanager
async def running_orchestrator(settings: Settings) -> AsyncIterator["Orchestrator"]:
    """Run an orchestrator on RabbitMQ and MongoDB; at the end it stops in order.

    Raises:
        BrokerUnavailableError, StoreUnavailableError: a server cannot be reached, or refuses us.
        ConfigurationError: the number of partitions is another one than that of the store.
    """
    from aiki.orchestrator.service import Orchestrator

    async with AsyncExitStack() as stack:
        store, broker = await _servers(settings, stack)
        orchestrator = Orchestrator(broker, store, SystemClock(), _orchestrator_settings(settings))
        await orchestrator.start()
        stack.push_async_callback(orchestrator.stop, settings.shutdown_grace.total_seconds())
        yield orchestrator


@asynccontextmanager
async def running_worker(
    settings: Settings, workflows: Sequence[Workflow[..., Any]], tasks: Sequence[Task[..., Any]] = ()
) -> AsyncIterator["Worker"]:
    """Run a worker on RabbitMQ; at the end it hands back what it holds.

    Raises:
        BrokerUnavailableError: the broker cannot be reached, or refuses us.
    """
    name = _process_name("worker")
    broker = make_broker(settings, name=name)
    async with (
        Client(broker, clock=SystemClock(), name=name, timeout=settings.timeout, listen=False) as client,
        _worker(client, settings, workflows, tasks) as worker,
    ):
        yield worker


@dataclass(frozen=True, slots=True)
class Dev:
    """An engine in this process that others on this machine can talk to."""

    client: Client
    worker: "Worker"
    orchestrator: "Orchestrator"
    database: Path

    async def stop(self) -> None:
        """Let the worker hand back what it holds, and the orchestrator store that."""
        await self.worker.stop()
        await self.orchestrator.stop()


@asynccontextmanager
async def running_dev(
    settings: Settings, workflows: Sequence[Workflow[..., Any]], tasks: Sequence[Task[..., Any]] = ()
) -> AsyncIterator[Dev]:
    """Run everything in this process, and listen beside the database for clients in others.

    Raises as ``embedded``.
    """
    database = settings.data_path()
    database.parent.mkdir(parents=True, exist_ok=True)
    async with _engine(database, retention=settings.retention, partitions=settings.partitions) as engine:
        client = Client(engine.connect(), clock=SystemClock(), timeout=settings.timeout, listen=False)
        async with client, _worker(client, settings, workflows, tasks) as worker:
            listener = engine.connect()
            await listener.start()
            server = SocketServer(listener, socket_path(database))
            await server.start()
            try:
                yield Dev(client, worker, engine.orchestrator, database)
            finally:
                await server.close()
                await listener.close()


async def rebuild_queues(settings: Settings) -> "RebuildReport":
    """Send every unfinished run what it needs to go on, after the broker lost its queues. May be done again.

    Raises:
        BrokerUnavailableError, StoreUnavailableError: a server cannot be reached, or refuses us.
        ConfigurationError: the number of partitions is another one than that of the store.
    """
    from aiki.orchestrator.rebuild import rebuild

    async with AsyncExitStack() as stack:
        store, broker = await _servers(settings, stack)
        stored = await store.partitions(settings.partitions)
        if stored != settings.partitions:
            raise ConfigurationError(
                f"the store was set up with {stored} partitions, not {settings.partitions}",
                hint=f"set AIKI_PARTITIONS={stored}",
            )
        return await rebuild(store, broker, SystemClock(), timeout=settings.timeout.total_seconds())


class _Engine:
    """An orchestrator on a broker in memory and a store in a file."""

    def __init__(self, hub: Any, orchestrator: "Orchestrator") -> None:
        self._hub = hub
        self.orchestrator = orchestrator

    def connect(self) -> Broker:
        """Make one more end of the broker."""
        from aiki.adapters.broker.memory import MemoryBroker

        return MemoryBroker(self._hub)


@asynccontextmanager
async def _engine(
    path: str | PathLike[str] | None, *, retention: timedelta, partitions: int = _PARTITIONS_ALONE
) -> AsyncIterator[_Engine]:
    from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
    from aiki.adapters.store.embedded import SqliteStore
    from aiki.orchestrator.rebuild import rebuild
    from aiki.orchestrator.service import Orchestrator
    from aiki.orchestrator.settings import OrchestratorSettings

    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = SqliteStore(path)
        await store.start()
        stack.push_async_callback(store.close)

        # A file keeps the number that it was made with: in one process there is nothing to agree on.
        hub = MemoryHub(clock=clock, partitions=await store.partitions(partitions), durable_confirms=True)
        broker = MemoryBroker(hub)
        await broker.start()
        stack.push_async_callback(broker.close)

        # The broker holds nothing yet. Whoever held a run then died with the process, perhaps because of it.
        await rebuild(store, broker, clock, blame=True)
        orchestrator = Orchestrator(
            broker,
            store,
            clock,
            OrchestratorSettings(name="embedded", retention=retention.total_seconds(), company=0.0),
        )
        await orchestrator.start()
        stack.push_async_callback(orchestrator.stop)
        yield _Engine(hub, orchestrator)


async def _servers(settings: Settings, stack: AsyncExitStack) -> tuple[Store, Broker]:
    """Connect to both servers; *stack* disconnects."""
    broker = make_broker(settings, name=_process_name("orchestrator"))
    store = make_store(settings)
    stack.push_async_callback(store.close)
    await store.start()
    stack.push_async_callback(broker.close)
    await broker.start()
    return store, broker


def _worker(
    client: Client, settings: Settings, workflows: Sequence[Workflow[..., Any]], tasks: Sequence[Task[..., Any]]
) -> "Worker":
    from aiki.worker.service import Worker, WorkerSettings

    leases = WorkerSettings(lease_after=settings.lease_after.total_seconds(), lease=settings.lease.total_seconds())
    return Worker(
        client,
        workflows=workflows,
        tasks=tasks,
        max_concurrent_runs=settings.concurrency,
        shutdown_grace=settings.shutdown_grace,
        settings=leases,
    )


def _client_broker(settings: Settings, *, name: str) -> ClientBroker:
    url = broker_url(settings)
    if is_embedded(url):
        return SocketBroker((settings.root / Path(url.removeprefix(_EMBEDDED)).expanduser()).absolute())
    from aiki.adapters.broker.rabbitmq import RabbitBroker

    return RabbitBroker(url, partitions=settings.partitions, name=name, heartbeat=settings.heartbeat)


def _orchestrator_settings(settings: Settings) -> "OrchestratorSettings":
    from aiki.orchestrator.settings import OrchestratorSettings

    health = settings.health
    return OrchestratorSettings(
        retention=settings.retention.total_seconds(),
        health=None if health is None else (health.host, health.port),
    )


def _process_name(role: str) -> str:
    return f"{role}-{socket.gethostname()}-{os.getpid()}"


def _timedelta(span: Duration) -> timedelta:
    return span if isinstance(span, timedelta) else timedelta(seconds=span)
