"""What is executed while everything breaks: small workflows whose outcome follows from the number of their job."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from aiki.engine.payload import load_payload
from aiki.engine.retry import exponential, fixed
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import TaskFailedError
from aiki.sdk.context import TaskContext
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow
from aiki.testing.chaos.history import recorder_of_this_process
from aiki.worker.replay import Replay

__all__ = ["BURST", "BURST_STEPS", "SIGNAL", "Job", "chaos_chain", "job_of", "number_of"]

SIGNAL = "word"

BURST = 1_000_000_000
"""From here on, jobs are those that many are started of at once: all alike."""
BURST_STEPS = 2


def _note_replay(run: Run) -> None:
    """Note that a worker begins to execute *run*, and how much of it is recorded by then."""
    driver = cast(Replay, run.driver)
    with driver.outside():
        recorder_of_this_process().write("replayed", run_id=run.id, seen=driver.history.last_seq, process=os.getpid())


@contextmanager
def _noted(context: TaskContext) -> Iterator[None]:
    """Note when an attempt begins, and when it ends with a result."""
    recorder = recorder_of_this_process()
    recorder.write(
        "attempted",
        run_id=context.run_id,
        task=context.task,
        key=context.idempotency_key,
        attempt=context.attempt,
        process=os.getpid(),
    )
    yield
    recorder.write("done", run_id=context.run_id)


class BusyError(Exception):
    """Not this time."""


@task
async def add(context: TaskContext, value: int, seconds: float = 0.0) -> int:
    """Add one, slowly."""
    with _noted(context):
        await asyncio.sleep(seconds)
        return value + 1


@task
def triple(context: TaskContext, value: int) -> int:
    """Triple *value*, in a thread."""
    with _noted(context):
        return value * 3


@task(retry=exponential(max_attempts=4, base_delay=0.2, factor=2.0))
async def refuse(context: TaskContext, refusals: int) -> int:
    """Fail *refusals* times; tells at which attempt it did not."""
    with _noted(context):
        if context.attempt <= refusals:
            raise BusyError(f"attempt {context.attempt}")
        return context.attempt


@task(retry=fixed(max_attempts=2, delay=0.5))
async def hopeless(context: TaskContext) -> None:
    """Fail always."""
    with _noted(context):
        raise BusyError(f"attempt {context.attempt}")


@task(queue="chaos-elsewhere")
async def remote(context: TaskContext, value: int) -> int:
    """Add one, on whichever worker takes it."""
    with _noted(context):
        return value + 1


@workflow(version="1")
async def chaos_chain(run: Run, number: int, steps: int) -> int:
    """One task after the other."""
    _note_replay(run)
    value = number
    for step in range(steps):
        value = await (triple.run(run, value) if step % 3 == 2 else add.run(run, value))
    return value


@workflow(version="1")
async def chaos_fan(run: Run, number: int, width: int) -> int:
    """Tasks side by side, and one that depends on all."""
    _note_replay(run)
    values = await asyncio.gather(*(add.run(run, number + each, 0.01 * each) for each in range(width)))
    return await add.run(run, sum(values))


@workflow(version="1")
async def chaos_nap(run: Run, number: int, seconds: float) -> int:
    """A task, a sleep, a task."""
    _note_replay(run)
    value = await add.run(run, number)
    await run.sleep(seconds)
    return await add.run(run, value)


@workflow(version="1")
async def chaos_patience(run: Run, number: int, refusals: int) -> int:
    """A task that is tried again."""
    _note_replay(run)
    return number + await refuse.run(run, refusals)


@workflow(version="1")
async def chaos_failure(run: Run, number: int, is_caught: bool) -> int:
    """A task that fails for good, and a run that fails with it or finds another way."""
    _note_replay(run)
    try:
        await hopeless.run(run)
    except TaskFailedError:
        if not is_caught:
            raise
    return await add.run(run, number)


@workflow(version="1")
async def chaos_family(run: Run, number: int) -> int:
    """A child run beside a task."""
    _note_replay(run)
    child, own = await asyncio.gather(chaos_chain.run(run, number, 2), add.run(run, number))
    return child + own


@workflow(version="1")
async def chaos_question(run: Run, number: int) -> int:
    """A word from outside, and a task."""
    _note_replay(run)
    return await add.run(run, number + await run.wait_for_signal(SIGNAL, int))


@workflow(version="1")
async def chaos_errand(run: Run, number: int) -> int:
    """A task on another worker, and one here."""
    _note_replay(run)
    return await add.run(run, await remote.run(run, number))


@dataclass(frozen=True, slots=True)
class Job:
    """A run that a client wants, and what must come of it."""

    number: int
    workflow: Workflow[..., Any]
    arguments: tuple[Any, ...]
    result: int | None
    """``None``: it fails."""
    failed_attempts: int = 0
    """How many failures of tasks are to be recorded."""
    says: int | None = None
    """What the client has to say to it."""

    @property
    def status(self) -> RunStatus:
        """How it has to end."""
        return RunStatus.FAILED if self.result is None else RunStatus.COMPLETED

    @property
    def is_keyed(self) -> bool:
        """Whether it is started with an idempotency key. What has to be found again after a crash is."""
        return self.says is not None or self.number % 4 == 0

    @property
    def waits_for_store(self) -> bool:
        """Whether its client waits until it is stored, and not only until the broker has it."""
        return self.is_keyed or self.number % 4 == 1

    @property
    def key(self) -> str:
        """Its idempotency key, where it has one."""
        return f"job-{self.number}"


def _chain(number: int, random: Random) -> Job:
    steps = random.randint(2, 4)
    result = number
    for step in range(steps):
        result = result * 3 if step % 3 == 2 else result + 1
    return Job(number, chaos_chain, (number, steps), result)


def _fan(number: int, random: Random) -> Job:
    width = random.randint(2, 3)
    return Job(number, chaos_fan, (number, width), sum(number + each + 1 for each in range(width)) + 1)


def _nap(number: int, random: Random) -> Job:
    return Job(number, chaos_nap, (number, random.choice((0.1, 0.4, 1.0, 2.0))), number + 2)


def _patience(number: int, random: Random) -> Job:
    refusals = random.randint(1, 3)
    return Job(number, chaos_patience, (number, refusals), number + refusals + 1, failed_attempts=refusals)


def _failure(number: int, random: Random) -> Job:
    is_caught = random.random() < 0.5
    # The first of two failures is an attempt; the second is the end of the task.
    return Job(number, chaos_failure, (number, is_caught), number + 1 if is_caught else None, failed_attempts=1)


def _family(number: int, random: Random) -> Job:
    return Job(number, chaos_family, (number,), 2 * number + 3)


def _question(number: int, random: Random) -> Job:
    return Job(number, chaos_question, (number,), 2 * number + 1, says=number)


def _errand(number: int, random: Random) -> Job:
    return Job(number, chaos_errand, (number,), number + 2)


_KINDS: Sequence[tuple[int, Callable[[int, Random], Job]]] = (
    (6, _chain),
    (4, _fan),
    (4, _nap),
    (2, _patience),
    (1, _failure),
    (2, _family),
    (2, _question),
    (1, _errand),
)


def job_of(number: int) -> Job:
    """Make the job of that number: always the same."""
    if number >= BURST:
        return Job(number, chaos_chain, (number, BURST_STEPS), number + BURST_STEPS)
    random = Random(number)
    make = random.choices([kind for _, kind in _KINDS], [weight for weight, _ in _KINDS])[0]
    return make(number, random)


def number_of(run: RunState) -> int:
    """Tell which job a run belongs to."""
    return int(load_payload(run.input)["number"])
