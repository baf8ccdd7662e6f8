"""What every private server has in common: a folder, a process, and a way to tell that it is ready."""

import fcntl
import json
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from aiki.errors import AikiError
from aiki.testing.servers.ports import free_ports, is_free
from aiki.testing.servers.processes import ServerProcess

if TYPE_CHECKING:
    from aiki.testing.servers.disks import SmallDisk

__all__ = ["NOBODY", "ServerError", "ServerNode", "ServerStartError"]

NOBODY: Final = 0
"""The owner of a server that is to run until somebody stops it."""

POLL_SECONDS = 0.02
LOG_LINES_SHOWN = 15


class ServerError(AikiError):
    """A private server did not do what was asked of it."""


class ServerStartError(ServerError):
    """A private server ended, or did not get ready in time, after it was started."""

    def __init__(self, title: str, reason: str, *, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
        super().__init__(
            f"{title} {reason}; the end of its log:\n" + "\n".join(f"    {line}" for line in lines),
            hint=f"the whole log is {log}",
        )


class ServerNode(ABC):
    """A server of our own in a folder of its own, listening on the loopback interface only.

    All that must be known of it (its ports, its process) is kept in the folder. Two objects on the
    same folder, in one process or in two, are therefore the same server; `start` on a server that
    runs only waits until it is ready. The ports stay the same for the life of the folder.

    A server is killed, and its folder removed, when its *owner* (a process id, by default of the
    process that makes this object) is gone. With `NOBODY` it runs until it is stopped.
    """

    title: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    ready_seconds: ClassVar[float] = 90.0
    stop_seconds: ClassVar[float] = 30.0

    def __init__(
        self, folder: Path, *, owner: int | None = None, preferred_ports: Mapping[str, int] | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.owner = os.getpid() if owner is None else owner
        self.preferred_ports = dict(preferred_ports or {})
        self.disk: SmallDisk | None = None
        """A disk that it is to be started with, mounted somewhere in the folder."""
        self.log = self.folder / "output.log"

    @abstractmethod
    def prepare(self) -> None:
        """Write what the server reads when it starts."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program, by its absolute path, and its arguments."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """All variables that the program gets; none of ours are passed on."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers clients. May be asked before the server listens."""

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports of this server by what they are for, chosen when first asked for.

        A preferred port is taken when it is free at that moment.
        """
        known = self._read("ports.json")
        if set(known) != set(self.port_names):
            known = dict(zip(self.port_names, free_ports(len(self.port_names)), strict=True))
            known |= {name: port for name, port in self.preferred_ports.items() if is_free(port)}
            self._write("ports.json", known)
        return known

    @property
    def process(self) -> ServerProcess | None:
        """The process started last, running or not."""
        known = self._read("process.json")
        return ServerProcess(pid=known["pid"], started=known["started"]) if known else None

    @property
    def pid(self) -> int:
        """The id of the server's own process, not of a script around it.

        Raises:
            ServerError: the server was never started.
        """
        process = self.process
        if process is None:
            raise ServerError(f"{self.title} in {self.folder} has no process", hint="call start() first")
        return process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives, ready or not."""
        process = self.process
        return process is not None and process.is_running

    def start(self, *, wait: bool = True) -> Self:
        """Start the server unless it runs, and wait until it is ready.

        Any number of processes may do this at the same time: one of them starts it.

        Raises:
            ServerStartError: it ended again, or is not ready in time.
        """
        with self._alone():
            if not self.is_running:
                self._launch()
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, *, timeout: float | None = None) -> None:
        """Wait until clients are answered.

        Raises:
            ServerStartError: the process ended meanwhile, or the time is up.
        """
        limit = self.ready_seconds if timeout is None else timeout
        deadline = time.monotonic() + limit
        while not self.is_ready():
            if not self.is_running:
                raise ServerStartError(self.title, "ended before it was ready", log=self.log)
            if time.monotonic() > deadline:
                raise ServerStartError(self.title, f"was not ready within {limit:g} seconds", log=self.log)
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask the server to end properly, and wait. One that does not end in time is killed."""
        process = self.process
        if process is None:
            return
        process.send(signal.SIGTERM)
        if not process.wait(timeout=self.stop_seconds):
            process.kill()

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL). What it has written stays."""
        process = self.process
        if process is not None:
            process.kill()

    def restart(self) -> None:
        """Stop the server, start it on the same data and ports, and wait until it is ready."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Hold the process (SIGSTOP): its connections stay open and nobody answers."""
        if (process := self.process) is not None:
            process.freeze()

    def thaw(self) -> None:
        """Let a frozen process go on."""
        if (process := self.process) is not None:
            process.send(signal.SIGCONT)

    def remove(self) -> None:
        """Kill the server and remove all that it has written."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self.folder}>"

    def _launch(self) -> None:
        self.prepare()
        process = ServerProcess.launch(
            self.command() if self.disk is None else self.disk.joining(self.command()),
            environment=self.environment(),
            log=self.log,
            owner=None if self.owner == NOBODY else self.owner,
            folder=self.folder,
        )
        self._write("process.json", {"pid": process.pid, "started": process.started})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, name: str) -> dict[str, int]:
        path = self.folder / name
        if not path.exists():
            return {}
        known: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        return known

    def _write(self, name: str, known: Mapping[str, int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Renamed into place: another process may read it at this moment.
        draft = self.folder / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(dict(known)), encoding="utf-8")
        draft.replace(self.folder / name)
