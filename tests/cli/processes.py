"""The command line as processes, in a project folder of their own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiki import Client

__all__ = ["PATIENCE", "CommandLine", "Service", "eventually"]

PATIENCE = 30.0


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until *condition* holds; fail with *what* was waited for."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


class Service:
    """A command that runs until it is told to stop."""

    def __init__(self, command: list[str], *, folder: Path, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def output(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def says(self, text: str) -> None:
        """Wait until it wrote *text*."""
        self.ends_or_says(text)
        assert text in self.output, f"it ended:\n{self.output}"

    def ends_or_says(self, text: str) -> None:
        """Wait until it wrote *text*, or is over."""
        eventually(lambda: text in self.output or self.has_ended, repr(text))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end; tell the exit code."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if not self.has_ended:
            self._process.kill()
        self._process.wait(PATIENCE)


class CommandLine:
    """`aiki` in *folder*; what it started is ended with it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIKI_", "PYTHON"))}
        self.environment = {**kept, "PYTHONUNBUFFERED": "1", **environment}
        self._services: list[Service] = []

    def run(self, *arguments: str, input: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":  # noqa: A002
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "aiki", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def does(self, *arguments: str) -> str:
        """Run a command that succeeds; tell what it wrote."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"aiki {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout.strip()

    def tells(self, *arguments: str) -> Any:
        """Run a command that succeeds with ``--json``; tell what that says."""
        return json.loads(self.does(*arguments, "--json"))

    def refuses(self, *arguments: str, **environment: str) -> str:
        """Run a command that fails with one of our errors; tell what it wrote about it."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 1, f"aiki {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr

    def start(self, *arguments: str, **environment: str) -> Service:
        """Start a service."""
        service = Service(
            [sys.executable, "-m", "aiki", *arguments],
            folder=self.folder,
            environment={**self.environment, **environment},
            log=self.folder / f"{arguments[0]}-{len(self._services)}.log",
        )
        self._services.append(service)
        return service

    def becomes(self, run_id: str, status: str) -> None:
        """Wait until a run has *status*."""
        url = self.environment.get("AIKI_AMQP_URL", f"embedded:{self.folder / '.aiki' / 'dev.db'}")

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE), Client.connect(url) as client:
                handle = client.handle(run_id)
                while await handle.status() != status:  # noqa: ASYNC110 - not every change is announced.
                    await asyncio.sleep(0.05)

        asyncio.run(wait())

    def close(self) -> None:
        """End what still runs."""
        for service in self._services:
            service.kill()
