"""The system under test: private servers, and orchestrators and workers as the command line starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Self

import psutil

from aiki.testing.servers import MongoNode, RabbitNode
from bench.marks import Marks

__all__ = ["Service", "System", "servers"]

PATIENCE = 60.0

# What connecting, looking and leaving take, over a connection of its own.
LOOKING = frozenset({"serverStatus", "isMaster", "endSessions"})

# What RabbitMQ counts for all protocols together, and for all connections.
MESSAGES = "maps:fold(fun(_, C, N) -> N + maps:get(messages_{}_total, C, 0) end, 0, rabbit_global_counters:overview())"
BYTES = "lists:sum([N || I <- rabbit_networking:connection_info_all([recv_oct, send_oct]), {_, N} <- I, is_integer(N)])"


class Service:
    """A process that works on runs."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path, ready: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid
        self._ready = ready

    def wait_until_ready(self) -> None:
        """Wait until it says that it is at work."""
        end = time.monotonic() + PATIENCE
        while self._ready not in (said := self._log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"a service did not start:\n{said[-3000:]}")
            time.sleep(0.02)

    def kill(self) -> float:
        """End it with SIGKILL; tells when, in seconds since 1970."""
        at = time.time()
        self._process.kill()
        self._process.wait(PATIENCE)
        return at

    def signal(self, number: int) -> None:
        """Send it a signal; one to a process that has ended goes nowhere."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()


class System:
    """Servers, and whatever was started on them."""

    def __init__(self, rabbit: RabbitNode, mongo: MongoNode, folder: Path) -> None:
        self.rabbit = rabbit
        self.mongo = mongo
        self.folder = folder
        self.marks = Marks(folder / "marks")
        self.services: dict[str, Service] = {}
        self._started = 0
        self._queue: str | None = None
        self.environment: dict[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIKI_")},
            "AIKI_AMQP_URL": rabbit.url,
            "AIKI_MONGODB_URL": mongo.url,
            "AIKI_APP": "bench.workflows",
            "AIKI_LOG_FORMAT": "json",
            "BENCH_MARKS": str(self.marks.file),
            "PYTHONUNBUFFERED": "1",
        }

    def orchestrator(self, name: str = "orchestrator") -> Service:
        """Start an orchestrator; the caller waits until it is ready."""
        return self.start(name, [sys.executable, "-m", "aiki", "orchestrator"], "orchestrator.started")

    def worker(self, name: str = "worker") -> Service:
        """Start a worker for what is served at present; the caller waits until it is ready."""
        queue = () if self._queue is None else ("--queue", self._queue)
        return self.start(name, [sys.executable, "-m", "aiki", "worker", *queue], "worker.started")

    def serve(self, queue: str | None) -> bool:
        """Have one worker serve *queue*, or those of all workflows; tells whether it is another one than before."""
        if "worker" in self.services and queue == self._queue:
            return False
        self._queue = queue
        if "worker" in self.services:
            self.services.pop("worker").stop()
        self.worker().wait_until_ready()
        return True

    def start(self, name: str, command: Sequence[str], ready: str) -> Service:
        """Start a process; it is at work when it has said what *ready* says."""
        self._started += 1
        log = self.folder / f"{name}-{self._started}.log"
        service = Service(command, environment=self.environment, log=log, ready=ready)
        self.services[name] = service
        return service

    @property
    def pids(self) -> Mapping[str, int]:
        """The processes that work on a run, by what they are; the client is this one."""
        servers = {"rabbitmq": self.rabbit.pid, "mongodb": self.mongo.pid, "client": os.getpid()}
        return {**{name: service.pid for name, service in self.services.items()}, **servers}

    def cpu(self) -> Mapping[str, float]:
        """Tell the CPU seconds that each process has taken so far, as the operating system counts them."""
        return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids.items()}

    def memory(self) -> float:
        """Tell the resident MiB of our own services together."""
        return sum(psutil.Process(s.pid).memory_info().rss for s in self.services.values()) / 2**20

    def memory_by_process(self) -> Mapping[str, float]:
        """Tell the resident MiB of each process."""
        return {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in self.pids.items()}

    def traffic(self) -> Mapping[str, int]:
        """Tell what the servers have counted so far: operations (documents, for inserts and updates), messages, bytes.

        Bytes are those that came in and went out over all connections that are open now.
        """
        with self.mongo.client() as client:
            # Without what is not looked at, the answer is too small to show in the bytes.
            status = client.admin.command("serverStatus", repl=0, metrics=0, locks=0, wiredTiger=0)
        operations, network = status["opcounters"], status["network"]
        return {
            **{f"MongoDB {kind}s": int(operations[kind]) for kind in ("insert", "update")},
            "MongoDB queries": int(operations["query"]),
            "MongoDB bytes": int(network["bytesIn"]) + int(network["bytesOut"]),
            "RabbitMQ messages in": int(self.rabbit.evaluate(MESSAGES.format("received"))),
            "RabbitMQ messages out": int(self.rabbit.evaluate(MESSAGES.format("delivered"))),
            "RabbitMQ bytes": int(self.rabbit.evaluate(BYTES)),
        }

    def commands(self) -> Mapping[str, int]:
        """Tell how often MongoDB was asked for what so far, except for what it takes to look."""
        with self.mongo.client() as client:
            counted = client.admin.command("serverStatus")["metrics"]["commands"]
        return {
            name: int(one["total"])
            for name, one in counted.items()
            if isinstance(one, dict) and "total" in one and name not in LOOKING
        }

    def start_afresh(self) -> None:
        """Have new processes in the place of all services: those that were busy keep the memory that it took."""
        starts = {"orchestrator": self.orchestrator, "worker": self.worker}
        for name, start in starts.items():
            self.services.pop(name).stop()
            start().wait_until_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End every service."""
        for service in self.services.values():
            service.stop()
        self.services.clear()


@contextmanager
def servers(folder: Path) -> Iterator[tuple[RabbitNode, MongoNode]]:
    """Start servers in *folder*; they are gone at the end, and at SIGTERM, which ends the program as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _leave)
    with RabbitNode(folder / "rabbit") as rabbit, MongoNode(folder / "mongo") as mongo:
        yield rabbit, mongo


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
