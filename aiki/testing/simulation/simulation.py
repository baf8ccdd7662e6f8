"""One simulation: from a seed to a verdict."""

import asyncio
import gc
import logging
import os
import random as global_random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import QueryFailedError
from aiki.testing.simulation.faults import Fault, Injector, draw_faults
from aiki.testing.simulation.invariants import Watch
from aiki.testing.simulation.loop import SimulationLoop, SimulationStuckError
from aiki.testing.simulation.profiles import Profile, circumstances_of, profile_of
from aiki.testing.simulation.roles import Driver, elsewhere, orchestrator, rebuilder, worker
from aiki.testing.simulation.store import done_at_once
from aiki.testing.simulation.workload import Job, draw_jobs, recorder, witness
from aiki.testing.simulation.world import World
from aiki.worker.threads import Threads

__all__ = ["Report", "simulate"]

# When everything was put right, it has so long to come to an end.
HEALING_SECONDS = 1800.0

# Once every run is over and nothing is under way any more: leases run out, and whoever sweeps does so once more.
QUIET_SECONDS = 40.0

# Whoever was lost counts as present for so long.
PRESENCE_SECONDS = 70.0

# If something is left over then, it gets this long to go away.
SETTLING_SECONDS = 120.0

# How often a sweep is made where runs expire within a simulation.
KEEPING_CLEAN_SECONDS = 3.0

NEVER = 1e9

# What is said at this level, and is no fault of the code.
_EXPECTED_ERRORS = frozenset({"run.lease_lost"})


@dataclass(slots=True)
class Report:
    """What came of one simulation."""

    seed: int
    profile: Profile
    faults: list[Fault]
    """What was to go wrong."""
    struck: list[Fault] = field(default_factory=list)
    """What did: a fault may aim at something that never comes, or comes when everything is put right."""
    deeds: Counter[str] = field(default_factory=Counter)
    """How often something was done that is seldom needed."""
    violations: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    runs: int = 0
    executions: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Of virtual time."""


def simulate(
    seed: int, *, faults: Sequence[Fault] | None = None, without: Collection[str] = (), traced: bool = False
) -> Report:
    """Simulate what *seed* says, or the same with other *faults*, or *without* some kinds of them."""
    random, profile = Random(seed), profile_of(seed)
    jobs = draw_jobs(random, profile.workflows, profile.jobs)
    drawn = draw_faults(random, profile.kinds, profile.numbers)
    wanted = drawn if faults is None else faults
    report = Report(seed, profile, [fault for fault in wanted if fault.kind not in without])
    watching: list[Watch] = []
    with _from_seed(seed), _errors_into(report) as errors:
        # Who is told is known only once there is a world, and that needs the loop.
        tokens = (
            recorder.set(lambda context: watching[0].on_attempt(context)),  # noqa: PLW0108
            witness.set(lambda context: watching[0].on_progress(context)),  # noqa: PLW0108
        )
        loop = SimulationLoop()
        try:
            _run(loop, report, jobs, random, watching, errors, traced=traced)
        finally:
            errors.end()
            recorder.reset(tokens[0])
            witness.reset(tokens[1])
            watching.clear()
            jobs.clear()
            _clear_away(loop)
    return report


def _run(
    loop: SimulationLoop,
    report: Report,
    jobs: list[Job],
    random: Random,
    watching: list[Watch],
    errors: "_ErrorsIntoReport",
    *,
    traced: bool,
) -> None:
    circumstances = circumstances_of(report.seed)
    world = World(loop, random, circumstances=circumstances, partitions=random.choice(report.profile.partitions))
    world.network.busy_share = report.profile.busy_share
    world.network.is_traced = traced
    watch = Watch(world, jobs)
    watching.append(watch)
    errors.is_gone = watch.is_over
    loop.set_exception_handler(lambda _, context: _on_error(watch, context))
    simulation = _Simulation(world, watch, jobs, report)
    try:
        loop.run_until_complete(simulation.run())
    except SimulationStuckError as error:
        watch.complain(str(error))
    report.violations += watch.violations
    report.struck = simulation.struck
    report.deeds = watch.deeds + simulation.repairs
    report.trace = list(world.network.trace)
    report.runs, report.executions = len(watch.runs), watch.executions
    report.steps, report.seconds = world.network.steps, loop.time()


class _Simulation:
    """Lets a world begin, break, heal and end."""

    def __init__(self, world: World, watch: Watch, jobs: list[Job], report: Report) -> None:
        self._world = world
        self._watch = watch
        self._jobs = jobs
        self._report = report
        self._profile = report.profile
        self._driver = Driver(jobs, watch)
        self._injector = Injector(world, report.faults)
        self._rebuilds = 0
        self._wiped_at = 0.0

    @property
    def struck(self) -> list[Fault]:
        """What went wrong."""
        return self._injector.struck

    @property
    def repairs(self) -> Counter[str]:
        """What sweeps did."""
        counted = self._world.stats
        return Counter(
            {
                "overdue timers fired": sum(stats.timers_repaired for stats in counted),
                "dispatches doubted": sum(stats.dispatches_doubted for stats in counted),
                "holders asked": sum(stats.holders_asked for stats in counted),
            }
        )

    async def run(self) -> None:
        """Simulate all of it."""
        world, injector = self._world, self._injector
        world.network.on_step = injector.on_step
        world.on_wipe = self._on_wipe
        if self._profile.sweep_every is not None or any(job.again for job in self._jobs):
            world.sweep_every = self._profile.sweep_every or KEEPING_CLEAN_SECONDS
        elif not any(fault.kind.startswith("wipe") for fault in self._report.faults) and world.random.random() < 0.7:
            world.sweep_every = NEVER  # Nothing may depend on it as long as the broker loses nothing.
        self._begin()
        await self._until(lambda: self._is_over() and injector.is_done, seconds=self._profile.trouble_seconds)
        if self._watch.violations:
            return
        world.heal()
        if world.was_wiped:
            await self._rebuild()
        if not await self._until(self._is_over, seconds=HEALING_SECONDS):
            if not self._watch.violations:
                self._complain_of_what_is_stuck()
            return
        await self._settle()
        self._watch.check_journals()
        await self._until(lambda: not self._watch.left_over(), seconds=SETTLING_SECONDS)
        for what in self._watch.left_over():
            self._watch.complain(what)

    async def _settle(self) -> None:
        """Let arrive what is under way, and then nothing happen for a while that does not happen by itself."""
        now, network = self._world.loop.time(), self._world.network
        arrived, forgotten = max(now, network.busy_until), self._world.lost_at + PRESENCE_SECONDS
        await asyncio.sleep(max(arrived + QUIET_SECONDS, forgotten) - now)

    def _begin(self) -> None:
        world, random = self._world, self._world.random
        for number in range(random.choice(self._profile.orchestrators)):
            world.begin(f"orchestrator-{number}", orchestrator, ahead=random.uniform(-1, 1))
        for number in range(random.choice(self._profile.workers)):
            world.begin(f"worker-{number}", worker)
        world.begin("elsewhere", elsewhere)
        world.begin("client", self._driver.role)

    async def _until(self, holds: Callable[[], bool], *, seconds: float) -> bool:
        """Wait until something holds; tell whether it came to that in time, and before anything went wrong."""
        end = self._world.loop.time() + seconds
        while not holds():
            if self._world.loop.time() > end or self._watch.violations:
                return False
            await asyncio.sleep(0.5)
        return True

    def _is_over(self) -> bool:
        heard = all(job.is_over for job in self._jobs)
        return heard and all(run.status.is_final or self._is_nobodys(run) for run in self._watch.runs)

    def _is_nobodys(self, run: RunState) -> bool:
        """Whether a run waits for a word that nobody is going to say: its client does not know that it was made."""
        is_patient = run.status is RunStatus.AWAITING_SIGNAL or run.workflow == "cancellable"
        return is_patient and all(job.run_id != run.run_id for job in self._jobs)

    def _on_wipe(self) -> None:
        """Have the queues rebuilt once the broker is back."""
        for job in self._jobs:
            job.is_parted |= 0 < job.said < len(job.says)
        self._wiped_at = self._world.loop.time()
        self._rebuilds += 1
        self._world.loop.later(self._world.random.choice((2.0, 30.0, 30.0)), self._begin_rebuilding)

    def _begin_rebuilding(self) -> None:
        self._world.begin(f"rebuilder-{self._rebuilds}", rebuilder)

    async def _rebuild(self) -> None:
        """Rebuild the queues, and say again what was lost with them before anybody had stored it."""
        name = f"rebuilder-{self._rebuilds}-last"
        self._world.begin(name, rebuilder)
        await self._until(lambda: "done" in self._world.members[name].parts, seconds=60.0)
        stored = {run.run_id for run in self._watch.runs}
        for job in self._jobs:
            if job.run_id is not None and job.run_id not in stored:
                # What the broker had confirmed and nobody had stored was lost with it; that, and nothing else.
                if job.is_stored or self._watch.taken_at[job.run_id] > self._wiped_at:
                    self._watch.complain(f"job {job.number} was accepted, and is lost")
                job.run_id = None
            if not job.is_over:
                job.said, job.is_unsure = 0, True
        self._world.kill(self._world.members["client"], after=0.1)

    def _complain_of_what_is_stuck(self) -> None:
        for run in self._watch.runs:
            if not run.status.is_final and not self._is_nobodys(run) and run.run_id not in self._watch.late:
                self._watch.complain(f"run {run.run_id[-6:]} ({run.workflow}) is {run.status} for ever: {run.pair}")
        for job in self._jobs:
            if not job.is_over:
                there = done_at_once(self._world.store.load([job.run_id or ""])).get(job.run_id or "")
                state = "nowhere" if there is None else there.status
                self._watch.complain(f"job {job.number} ({job.workflow.name}) was not heard of; its run is {state}")


def _on_error(watch: Watch, context: dict[str, Any]) -> None:
    """Note what a callback raised; of what was dropped without a look, most belonged to the dead."""
    error = context.get("exception")
    if "never retrieved" not in context["message"] and "was destroyed" not in context["message"]:
        watch.complain(f"{context['message']}: {error!r}")


def _knows_none(_run_id: str) -> bool:
    return False


class _ErrorsIntoReport(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__(logging.ERROR)
        self._report = report
        self._is_over = False
        self.is_gone: Callable[[str], bool] = _knows_none

    def end(self) -> None:
        """Report nothing more, and hold nothing of the world that is over."""
        self._is_over = True
        self.is_gone = _knows_none

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_over or self._is_expected(record):
            return
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self._report.violations.append(f"log: {record.getMessage()} {error}")

    def _is_expected(self, record: logging.LogRecord) -> bool:
        if record.getMessage().split()[0] in _EXPECTED_ERRORS:
            return True
        # An order that comes very late may be of a run that is kept no longer: its journal is gone.
        error = record.exc_info[1] if record.exc_info else None
        run_id = getattr(record, "aiki_fields", {}).get("run_id", "")
        return isinstance(error, QueryFailedError) and self.is_gone(run_id)


@contextmanager
def _errors_into(report: Report) -> Iterator[_ErrorsIntoReport]:
    """Take what the code logs as an error for a violation."""
    handler, log = _ErrorsIntoReport(report), logging.getLogger("aiki")
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates


async def _call_inline(self: Threads, function: Callable[[], Any]) -> Any:
    """Do what a thread would do."""
    await asyncio.sleep(0)
    return function()


@contextmanager
def _from_seed(seed: int) -> Iterator[None]:
    """Let everything that is random in this process follow from *seed*, and nothing run in a thread."""
    source = Random(f"bytes of {seed}")
    state = global_random.getstate()
    global_random.seed(f"numbers of {seed}")
    collecting = gc.isenabled()
    gc.disable()  # What the dead leave behind must not be cleaned up at moments that depend on other simulations.
    try:
        with (
            patch.object(os, "urandom", source.randbytes),
            patch.object(global_random, "_urandom", source.randbytes),
            patch("aiki.sdk.run_ids.urandom", source.randbytes),
            # A simulation has few runs: each is to belong to another partition, and all to none.
            patch("aiki.sdk.run_ids.RUNS_TOGETHER", 1),
            patch.object(Threads, "call", _call_inline),
        ):
            yield
    finally:
        global_random.setstate(state)
        if collecting:
            gc.enable()


def _clear_away(loop: SimulationLoop) -> None:
    """Drop what is left of a world, without a word."""
    loop.is_over = True
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.set_exception_handler(lambda _, context: None)
            loop._ready.clear()
            loop._scheduled.clear()
            # What cleans up now would make a loop of its own if there were none, which would keep it all for ever.
            asyncio.set_event_loop(None)
            gc.collect()
        loop.close()
    finally:
        sys.unraisablehook = hook
