"""The cluster that is broken: brokers, stores, orchestrators, workers and clients, each a local process.

Between our processes and the servers stand gates. Every process has its own to every
broker, so that one process can be cut off as well as all; a member of the replica set
has one, behind which the other members know it too.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiki.testing.chaos.client import STARTED
from aiki.testing.chaos.gates import Gate
from aiki.testing.chaos.history import HISTORY_VARIABLE
from aiki.testing.servers import Epmd, MongoReplicaSet, RabbitNode, ServerNode
from aiki.testing.servers.node import ServerError, ServerStartError
from aiki.testing.servers.rabbit import PASSWORD, USER

__all__ = ["DATABASE", "Broker", "Cluster", "Service", "Size", "make_brokers", "start_together"]

DATABASE = "chaos"
APP = "aiki.testing.chaos.workload"

# A frozen process is given up after about three heartbeats: short, so that faults outlast it in reasonable time.
HEARTBEAT_SECONDS = 2
# How long the brokers wait for one of them that is silent; Erlang's default is a minute.
NET_TICK_SECONDS = 8
COMMAND_SECONDS = 90.0
# A process that finds no server ends at once. One that still ends when every fault must be over has another reason.
STARTS_SECONDS = 120.0
STARTS_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are of everything."""

    brokers: int = 3
    stores: int = 3
    orchestrators: int = 2
    workers: int = 3
    clients: int = 2
    in_flight: int = 200
    """Runs that each client keeps under way."""


class Broker(RabbitNode):
    """A node of the cluster of brokers, which notices soon that another one is silent."""

    def environment(self) -> Mapping[str, str]:
        environment = dict(super().environment())
        environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += f" -kernel net_ticktime {NET_TICK_SECONDS}"
        return environment


class Service(ServerNode):
    """A process of Aiki: an orchestrator, a worker or a client. It is ready when it has said so."""

    title = "A process of Aiki"
    port_names = ()
    stop_seconds = 60.0

    def __init__(
        self, folder: Path, *, arguments: Sequence[str], says: str, gates: Sequence[Gate], settings: Mapping[str, str]
    ) -> None:
        super().__init__(folder)
        self.name = folder.name
        self.gates = tuple(gates)
        """Those to the brokers, in the order in which it tries them."""
        self.lock = asyncio.Lock()
        """Held by whoever breaks it."""
        self.is_over = False
        """It is not to be started again."""
        self._arguments = arguments
        self._says = says.encode()
        self._settings = settings
        self._log_before = 0

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and start it again where it ends because no server answers: as whoever minds services does."""
        deadline = time.monotonic() + STARTS_SECONDS
        while True:
            try:
                return super().start(wait=wait)
            except ServerStartError:
                # It is there, and never got ready; or it was ended on purpose.
                if self.is_running or self.is_over or time.monotonic() > deadline:
                    raise
            time.sleep(STARTS_PAUSE)

    def prepare(self) -> None:
        self._log_before = self.log.stat().st_size if self.log.exists() else 0

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", *self._arguments]

    def environment(self) -> Mapping[str, str]:
        return {**self._settings, "AIKI_AMQP_URL": amqp_urls(self.gates)}

    def is_ready(self) -> bool:
        return self._says in self.log.read_bytes()[self._log_before :]


class Load(Service):
    """A client. It ends when everything that it has begun has ended, however long the machine takes for that."""

    stop_seconds = 180.0


@dataclass(slots=True)
class Cluster:
    """Everything that takes part. Made by ``running``, which ends and removes all of it."""

    folder: Path
    size: Size
    brokers: tuple[Broker, ...] = ()
    stores: MongoReplicaSet | None = None
    store_gates: tuple[Gate, ...] = ()
    services: dict[str, Service] = field(default_factory=dict)
    broker_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever breaks brokers: the loss of one of three must not be lost."""
    store_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The same for members of the replica set."""

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, size: Size) -> AsyncIterator[Self]:
        """Start everything but the clients. Whatever happens, nothing of it is left at the end; no threads neither.

        Raises:
            ServerError: something would not start.
        """
        cluster = cls(folder, size)
        try:
            await cluster._start()
            yield cluster
        finally:
            await cluster._remove()

    @property
    def replicas(self) -> MongoReplicaSet:
        """The stores."""
        assert self.stores is not None, "the stores are made when the cluster is started"
        return self.stores

    @property
    def history(self) -> Path:
        """The folder of the history."""
        return self.folder / "history"

    def of_kind(self, kind: str) -> list[Service]:
        """List the orchestrators, workers or clients."""
        return [service for name, service in self.services.items() if name.startswith(kind)]

    def gates_to(self, broker: int) -> list[Gate]:
        """List everybody's gates to one broker."""
        port = self.brokers[broker].ports["amqp"]
        return [gate for gate in self._broker_gates() if gate.target == port]

    async def settle_topology(self) -> None:
        """Declare everything while all brokers are there, so that each queue has a member on each of them."""
        direct = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.brokers[0].ports['amqp']}/"
        await self.run_command("topology", "apply", "--retries", "--app", APP, AIKI_AMQP_URL=direct)
        await asyncio.gather(*(asyncio.to_thread(broker.settle) for broker in self.brokers))

    async def run_command(self, *arguments: str, **settings: str) -> str:
        """Run a command of the command line; tells what it said.

        Raises:
            ServerError: it failed.
        """
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "aiki", *arguments],
            env={**self._settings(), "AIKI_AMQP_URL": amqp_urls(self._clients_gates()), **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"aiki {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    async def start_clients(self) -> None:
        """Let the load begin."""
        await asyncio.gather(*(asyncio.to_thread(client.start) for client in self.of_kind("client")))

    async def start_brokers(self) -> None:
        """Start all brokers, see there."""
        await start_together(self.brokers)

    async def _start(self) -> None:
        self.history.mkdir(parents=True)
        self.brokers = make_brokers(self.folder, self.size.brokers)
        self.brokers[0].epmd.start()
        self.stores = MongoReplicaSet(self.folder / "stores", size=self.size.stores)
        self.store_gates = tuple([await Gate(member.ports["mongodb"]).start() for member in self.stores.members])
        for member, gate in zip(self.stores.members, self.store_gates, strict=True):
            member.known_as = gate.address
        await asyncio.gather(self.start_brokers(), asyncio.to_thread(self.stores.start))
        await self._make_services()
        await self.settle_topology()
        ours = [*self.of_kind("orchestrator"), *self.of_kind("worker")]
        await asyncio.gather(*(asyncio.to_thread(service.start) for service in ours))

    async def _make_services(self) -> None:
        size = self.size
        for number in range(size.orchestrators):
            await self._make_service(f"orchestrator-{number}", ["aiki", "orchestrator"], "orchestrator.started")
        for number in range(size.workers):
            await self._make_service(f"worker-{number}", ["aiki", "worker"], "worker.started")
        for number in range(size.clients):
            arguments = ["aiki.testing.chaos.client", str(number), str(size.in_flight)]
            await self._make_service(f"client-{number}", arguments, STARTED)

    async def _make_service(self, name: str, arguments: Sequence[str], says: str) -> None:
        gates = [await Gate(broker.ports["amqp"]).start() for broker in self.brokers]
        first = len(self.services) % len(gates)
        make = Load if name.startswith("client") else Service
        self.services[name] = make(
            self.folder / "services" / name,
            arguments=arguments,
            says=says,
            gates=[*gates[first:], *gates[:first]],
            settings=self._settings(),
        )

    def _settings(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIKI_")},
            HISTORY_VARIABLE: str(self.history),
            "AIKI_MONGODB_URL": self.replicas.url,
            "AIKI_MONGODB_DATABASE": DATABASE,
            "AIKI_APP": APP,
            "AIKI_HEARTBEAT": str(HEARTBEAT_SECONDS),
            "AIKI_SHUTDOWN_GRACE": "5s",
            "AIKI_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }

    def _clients_gates(self) -> Sequence[Gate]:
        return self.of_kind("client")[0].gates

    def _broker_gates(self) -> Iterator[Gate]:
        for service in self.services.values():
            yield from service.gates

    async def _remove(self) -> None:
        for service in self.services.values():
            service.is_over = True
        self._kill()
        # What was being started in threads, by a start or a fault that was interrupted, may be there only now. A broker
        # that finds no port mapper makes one that nobody would end.
        await asyncio.get_running_loop().shutdown_default_executor()
        self._kill()
        if self.brokers:
            self.brokers[0].epmd.kill()
        for gate in (*self._broker_gates(), *self.store_gates):
            await gate.close()

    def _kill(self) -> None:
        for server in (*self.services.values(), *self.brokers, *(self.stores.members if self.stores else ())):
            server.kill()


def make_brokers(folder: Path, count: int) -> tuple[Broker, ...]:
    """Make brokers of one cluster in *folder*; they share a port mapper, which has to be started before them."""
    names = [f"chaos{number}" for number in range(count)]
    settings = {
        "cluster_formation.peer_discovery_backend": "classic_config",
        "cluster_partition_handling": "pause_minority",
        **{f"cluster_formation.classic_config.nodes.{n + 1}": f"{name}@localhost" for n, name in enumerate(names)},
    }
    epmd = Epmd(folder / "epmd")
    return tuple(
        Broker(folder / "brokers" / name, name=name, settings=settings if count > 1 else {}, epmd=epmd)
        for name in names
    )


async def start_together(brokers: Sequence[Broker]) -> None:
    """Start all *brokers* together: a cluster that was stopped whole waits for its members."""
    for broker in brokers:
        await asyncio.to_thread(broker.start, wait=False)
    await asyncio.gather(*(asyncio.to_thread(broker.wait_until_ready) for broker in brokers))


def amqp_urls(gates: Sequence[Gate]) -> str:
    """Write the broker's URLs, as our processes are told them."""
    return ",".join(f"amqp://{USER}:{PASSWORD}@{gate.address}/" for gate in gates)


def wipe(broker: Broker) -> None:
    """Remove all that a broker that is not running has written."""
    shutil.rmtree(broker.folder / "mnesia", ignore_errors=True)
