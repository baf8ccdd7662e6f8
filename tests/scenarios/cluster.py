"""The processes of a scenario: orchestrators and workers as the command line starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.scenarios.effects import World

__all__ = ["Cluster", "Process", "eventually"]

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


def eventually(condition: Callable[[], object], what: str, *, timeout: float = PATIENCE) -> None:
    """Wait until *condition* holds; fail with *what* was waited for."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(0.01)


class Process:
    """One process of the command line, and what it wrote."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aiki", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str) -> None:
        """Wait until it wrote *text*."""
        eventually(lambda: text in self.output() or not self.is_alive, f"{self.name} to say {text!r}")
        assert text in self.output(), f"{self.name} ended:\n{self.output()[-3000:]}"

    def kill(self) -> float:
        """End it with SIGKILL; tells when."""
        at = time.time()
        self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE)
        return at

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.is_alive:
            self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and wait for that."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop:\n{self.output()[-3000:]}") from None


class Cluster:
    """Orchestrators and workers on given servers; all are gone when it closes."""

    def __init__(self, folder: Path, world: World, *, amqp_url: str, mongodb_url: str, database: str) -> None:
        self.world = world
        self.amqp_url = amqp_url
        self._folder = folder
        self._processes: list[Process] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIKI_")},
            **world.environment,
            "AIKI_AMQP_URL": amqp_url,
            "AIKI_MONGODB_URL": mongodb_url,
            "AIKI_MONGODB_DATABASE": database,
            "AIKI_APP": "tests.scenarios.app",
            "AIKI_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end."""
        return subprocess.run(
            [sys.executable, "-m", "aiki", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def orchestrator(self, **environment: str) -> Process:
        """Start an orchestrator and wait until it is at work."""
        process = self._start("orchestrator", ["orchestrator"], environment)
        process.wait_for_output("orchestrator.started")
        return process

    def worker(self, *queues: str, app: str | None = None, **environment: str) -> Process:
        """Start a worker and wait until it takes commands."""
        options = [part for queue in queues for part in ("--queue", queue)]
        options += ["--app", app] if app else []
        process = self._start("worker", ["worker", *options], environment)
        process.wait_for_output("worker.started")
        return process

    def _start(self, kind: str, arguments: list[str], environment: dict[str, str]) -> Process:
        name = f"{kind}-{len(self._processes) + 1}"
        process = Process(name, arguments, {**self.environment, **environment}, self._folder / f"{name}.log")
        self._processes.append(process)
        return process

    def worker_with_pid(self, pid: int) -> Process:
        """Find the process that left a mark."""
        return next(process for process in self._processes if process.pid == pid)

    def close(self) -> None:
        """End what still runs, at once."""
        for process in self._processes:
            process.thaw()
            process.kill()


@contextmanager
def a_cluster(folder: Path, *, amqp_url: str, mongodb_url: str, database: str) -> Iterator[Cluster]:
    """Make a cluster without processes, and end whatever was started in it."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, World(folder / "world"), amqp_url=amqp_url, mongodb_url=mongodb_url, database=database)
    try:
        yield cluster
    finally:
        cluster.close()
