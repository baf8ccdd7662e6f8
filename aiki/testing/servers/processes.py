"""Server processes: apart from the process that starts them, but never left behind by it.

A server gets a session of its own, so Ctrl-C in a test run does not reach it, and a guard: a tiny
process that ends the server when its owner is gone, however the owner went. (PR_SET_PDEATHSIG
would do it without a guard, but it follows the *thread* that started the server, and tests start
servers from threads that end early.) A process is known by its id and its start time, so that a
recycled id is never mistaken for a server of ours.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerProcess"]

GUARD = Path(__file__).with_name("guard.py")

# The fields of /proc/PID/stat after the parenthesised name; proc(5) counts from 1 and has the name second.
STATE_FIELD = 3 - 3
START_TIME_FIELD = 22 - 3

# What a process whose threads are all busy may take to stand still.
STOPPING_SECONDS = 5.0

# Python ignores SIGPIPE, and an ignored signal stays ignored in the programs that one starts.
SIGNALS_AS_USUAL = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server's process, ours or one that an earlier process of the project has started."""

    pid: int
    started: int

    @classmethod
    def launch(
        cls, command: Sequence[str], *, environment: Mapping[str, str], log: Path, owner: int | None, folder: Path
    ) -> "ServerProcess":
        """Start *command* in a session of its own, with everything it prints in *log*.

        When the process *owner* is gone, the server is killed and its *folder* removed. Without
        an owner it runs until somebody ends it.
        """
        with open(os.devnull, "rb") as nothing, log.open("ab") as output:
            pid = os.posix_spawn(
                command[0],
                list(command),
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=SIGNALS_AS_USUAL,
            )
        process = cls(pid=pid, started=_stat(pid)[1])
        if owner is not None:
            _guard(owner, process, folder)
        return process

    @property
    def is_running(self) -> bool:
        """Whether the process lives. A zombie does not, once its last thread has ended and let go of its ports."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        try:
            state, started = _stat(self.pid)
            threads = len(os.listdir(f"/proc/{self.pid}/task"))
        except OSError:
            return False
        return started == self.started and (state not in "ZX" or threads > 1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one to a process that is gone goes nowhere."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def freeze(self) -> None:
        """Hold the process (SIGSTOP), and wait until all of its threads stand still: busy ones do a little more."""
        self.send(signal.SIGSTOP)
        deadline = time.monotonic() + STOPPING_SECONDS
        while self.is_running and not self._stands_still() and time.monotonic() < deadline:
            time.sleep(0.001)  # Nothing tells that another process has stopped, if it is not our child.

    def _stands_still(self) -> bool:
        with contextlib.suppress(OSError):
            return all(_stat(self.pid, thread)[0] in "TtZX" for thread in os.listdir(f"/proc/{self.pid}/task"))
        return False  # A thread ended while it was looked at.

    def kill(self) -> None:
        """End the process and its own children at once, whatever they are doing, and wait for it."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait(timeout=10.0)

    def wait(self, *, timeout: float) -> bool:
        """Wait until the process is gone, and tell whether it is."""
        deadline = time.monotonic() + timeout
        try:
            watch = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            poller = select.poll()
            poller.register(watch, select.POLLIN)
            while self.is_running:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poller.poll(left * 1000)
        finally:
            os.close(watch)
        return True


def _stat(pid: int, thread: str | None = None) -> tuple[str, int]:
    """The state of a process or of one *thread*, and when it started, in clock ticks since the machine did."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = Path(path).read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
    return fields[STATE_FIELD], int(fields[START_TIME_FIELD])


def _guard(owner: int, server: ServerProcess, folder: Path) -> None:
    """Have the server watched. The guard detaches itself once it watches, and that is waited for here."""
    command = [sys.executable, "-I", "-S", str(GUARD), str(owner), str(server.pid), str(folder)]
    pid = os.posix_spawn(command[0], command, {}, setsid=True, setsigmask=[], setsigdef=SIGNALS_AS_USUAL)
    os.waitpid(pid, 0)
