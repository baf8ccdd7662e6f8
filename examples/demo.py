"""Watch a run survive: the process that executes it is killed in the middle of a task, and the next one goes on.

    python examples/demo.py

Everything is real and nothing is installed: `aiki dev` runs an onboarding workflow on a
database file, gets a SIGKILL, and is started again on the same file. The tasks write down
what they do. At the end their notes are held against what Aiki promises; the exit code is 0
only if it was kept.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aiki import AikiError, BrokerUnavailableError, Client, Handle

ROOT = Path(__file__).parents[1]
SIGNUP = {"signup": {"recipient": "ada@example.com", "name": "Ada"}}

# The fourth of five tasks: three are recorded by then, one is still to come.
KILLED_IN = "show the step 'invite a friend'"
SECONDS_PER_TASK = 0.6
PATIENCE = 15.0

console = Console(highlight=False)


@dataclass(frozen=True)
class Note:
    """What a task wrote down: that something began, ended, or was refused."""

    at: float
    what: str
    action: str
    process: int


class Notes:
    """The notes of all processes, in one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0

    def all(self) -> list[Note]:
        """Give all notes so far."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        values = (json.loads(line) for line in lines)
        return [Note(value["at"], value["what"], value["action"], value["process"]) for value in values]

    def new(self) -> list[Note]:
        """Give those that were not given before."""
        notes = self.all()
        fresh, self._read = notes[self._read :], len(notes)
        return fresh

    def count(self, what: str) -> Counter[str]:
        """Count how often each action began, or ended."""
        return Counter(note.action for note in self.all() if note.what == what)


class Demo:
    """Two lives of an engine, and one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "dev.db"
        self.notes = Notes(folder / "notes.jsonl")
        self._began = time.time()
        self._lives = 0
        self._engine: subprocess.Popen[bytes] | None = None

    def start_engine(self) -> None:
        """Start `aiki dev` on the database file."""
        self._lives += 1
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIKI_")} | {
            "AIKI_LOG_LEVEL": "warning",
            "EXAMPLES_LOG": str(self.notes.file),
            "EXAMPLES_SECONDS": str(SECONDS_PER_TASK),
        }
        command = [sys.executable, "-m", "aiki", "dev", "--app", "examples.user_onboarding"]
        with self.log.open("wb") as log:
            self._engine = subprocess.Popen(
                [*command, "--data", str(self.database)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.say("engine", f"process {self._engine.pid} opens {self.database.name}", style="bold")

    @property
    def log(self) -> Path:
        """What the engine that runs now has logged."""
        return self.folder / f"engine-{self._lives}.log"

    def kill_engine(self) -> None:
        """Take the plug out: SIGKILL leaves no time to do anything."""
        if self._engine is not None:
            self._engine.send_signal(signal.SIGKILL)
            self._engine.wait()
            self.say("engine", f"process {self._engine.pid} is killed with SIGKILL", style="bold red")
            self._engine = None

    def stop_engine(self) -> None:
        """End it in order, if it is there."""
        if self._engine is None:
            return
        self._engine.terminate()
        try:
            self._engine.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._engine.kill()
            self._engine.wait()
        self._engine = None

    def say(self, who: str, text: str, *, at: float | None = None, style: str = "") -> None:
        """Print one line: when, who, what."""
        seconds = (at or time.time()) - self._began
        console.print(f"{seconds:6.2f} s  {who:<14} {text}", style=style, markup=False, soft_wrap=True)

    def tell(self) -> None:
        """Print what the tasks wrote down since the last time."""
        styles = {"begin": "dim", "end": "green", "refused": "yellow"}
        words = {"begin": "begins:", "end": "done:", "refused": "refused:"}
        for note in self.notes.new():
            self.say(
                f"task in {note.process}", f"{words[note.what]:<8} {note.action}", at=note.at, style=styles[note.what]
            )

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Print what happens until *condition* holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self.tell()
            if self._engine is not None and self._engine.poll() is not None:
                raise DemoFailed(f"the engine ended by itself:\n{self.log.read_text(errors='replace')}")
            if time.monotonic() > end:
                raise DemoFailed(f"waited {PATIENCE:g} s for {what}")
            await asyncio.sleep(0.02)
        self.tell()

    async def play(self) -> bool:
        """Start a run, kill its engine, start another one, and see what becomes of the run."""
        self.start_engine()
        async with await self.client() as client:
            handle = await client.enqueue("user-onboarding", SIGNUP, version="1.0.0")
            self.say("you", f"enqueue user-onboarding: run {handle.id}", style="bold cyan")
            await self.until(lambda: self.notes.count("begin")[KILLED_IN], "the fourth task")
            await asyncio.sleep(SECONDS_PER_TASK / 2)
            self.tell()
            self.kill_engine()
            killed_at, recorded = time.time(), self.notes.count("end")

            self.start_engine()
            completion = asyncio.create_task(handle.wait_for_completion(timeout=PATIENCE))
            try:
                await self.until(completion.done, "the run to be over")
                result = await completion
            finally:
                completion.cancel()
            self.say("run", f"completed: {json.dumps(result)}", style="bold green")
            promises = await self.promises(handle, recorded, killed_at)

        console.print()
        self.show_timeline(handle.id)
        console.print()
        for promise, kept in promises:
            console.print(f"{'✓' if kept else '✗'} {promise}", style="green" if kept else "bold red", markup=False)
        return all(kept for _promise, kept in promises)

    async def client(self) -> Client:
        """Connect to the engine in the other process, as soon as it listens."""
        end = time.monotonic() + PATIENCE
        while True:
            client = Client.connect(f"embedded:{self.database}", name="demo", timeout=PATIENCE)
            try:
                await client.__aenter__()
            except BrokerUnavailableError:
                await client.close()
                if time.monotonic() > end or self._engine is None or self._engine.poll() is not None:
                    raise
                await asyncio.sleep(0.05)
            else:
                return client

    async def promises(self, handle: Handle[Any], recorded: Counter[str], killed_at: float) -> list[tuple[str, bool]]:
        """Hold what the tasks wrote down, and the journal, against what Aiki promises."""
        begun, ended = self.notes.count("begin"), self.notes.count("end")
        after = [note for note in self.notes.all() if note.at > killed_at]
        attempts = {
            entry.operation: entry.attempt for entry in await handle.journal() if entry.kind == "task_completed"
        }
        counted_once = Counter(attempts.values()) == Counter({1: 4, 2: 1})
        return [
            (
                f"{len(recorded)} tasks were recorded before the kill, and none of them ran again",
                len(recorded) == 3 and not any(note.action in recorded for note in after),
            ),
            (
                "the task in which the process died began a second time, and ended once",
                begun[KILLED_IN] == 2 and ended[KILLED_IN] == 1,
            ),
            ("every task ended exactly once", len(ended) == 5 and set(ended.values()) == {1}),
            ("the loss counts as no attempt: only the mail, refused once, took two", counted_once),
        ]

    def show_timeline(self, run_id: str) -> None:
        """Draw the run as `aiki runs show` does."""
        console.print(f"$ aiki runs show {run_id}", style="bold", markup=False)
        sys.stdout.flush()
        url = f"embedded:{self.database}"
        subprocess.run([sys.executable, "-m", "aiki", "runs", "show", run_id, "--url", url], cwd=ROOT, check=True)


class DemoFailed(Exception):  # noqa: N818 - reads as what happened
    """Something did not come about."""


def main() -> int:
    """Play the demo in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="aiki-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            kept = asyncio.run(demo.play())
        except (DemoFailed, AikiError, subprocess.SubprocessError) as error:
            console.print(f"the demo failed: {error}", style="bold red", markup=False)
            with suppress(OSError):
                console.print(demo.log.read_text(errors="replace"), markup=False)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            demo.stop_engine()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
