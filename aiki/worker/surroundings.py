"""What all executions of one worker share, and what it is set to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from os import urandom

from aiki.engine.commands import DeadLetter, ExecuteRun
from aiki.ports.broker import WorkerBroker
from aiki.ports.clock import Clock
from aiki.sdk.publisher import EventPublisher
from aiki.sdk.questions import Questions
from aiki.sdk.registry import Registry
from aiki.worker.gate import Gate
from aiki.worker.threads import Threads

__all__ = ["Surroundings", "WorkerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How much a worker takes, and how long it holds it. Durations are seconds."""

    max_concurrent_runs: int = 100
    shutdown_grace: float = 30.0
    """What a graceful stop gives to the tasks that are executing."""
    max_in_place_wait: float = 0.25
    """A run that waits for less than this stays where it is."""
    lease_after: float = 600.0
    """A command that is held for longer is acknowledged, and its run held under a lease. The broker's own limit
    is thirty minutes, checked once a minute; a third of it leaves time for several tries."""
    alone_after: float = 30.0
    """How long a run that has to be alone waits for the others to finish, and lets no new one begin meanwhile.
    After that it is given back: another worker may be idle, and this one has work to do."""
    lease: float = 300.0
    """How long a lease holds. It is renewed after a third of that."""
    threads_max: int = 64
    """How many tasks that are plain functions execute at the same time."""


def _unique_ids() -> Iterator[str]:
    # Nobody has to guess them, so that one question to the system for chance is enough for all of them.
    mine = urandom(10).hex()
    return (f"{mine}{number:012x}" for number in count())


@dataclass(slots=True)
class Surroundings:
    """A worker, as its parts see it."""

    worker: str
    broker: WorkerBroker
    publisher: EventPublisher
    questions: Questions
    clock: Clock
    registry: Registry
    settings: WorkerSettings
    gate: Gate
    threads: Threads
    grace: float
    """What attempts under way get now, should their run be handed back."""
    ids: Iterator[str] = field(default_factory=_unique_ids)
    """Ids that nobody has made before."""

    def new_id(self) -> str:
        """Make an id that nobody has made before."""
        return next(self.ids)

    def letter_about(self, command: ExecuteRun, reason: str, detail: str) -> DeadLetter:
        """Write the dead letter of a command that this worker cannot do."""
        return DeadLetter(
            id=f"unknown:{command.run_id}:{command.pair.epoch}:{command.pair.dispatch_id}",
            reason=reason,
            at=self.clock.now(),
            origin=command.queue,
            body=command.input,
            run_id=command.run_id,
            workflow=command.workflow,
            detail=detail,
        )
