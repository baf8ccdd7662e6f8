"""Rebuilding: MongoDB alone says what every queue should hold.

For a broker that lost its queues, and for the embedded one, which keeps none. Nothing
is put into a queue directly: each run is sent an event that lets the usual way of
deciding make a new dispatch (rule 1), so that rebuilding twice, or a queue that turns
out not to be lost, does no harm.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aiki.engine.commands import Command, SendEvent
from aiki.engine.decision import Moment
from aiki.engine.dispatching import awaits_elsewhere, doubt
from aiki.engine.ending import outcome
from aiki.engine.events import DispatchDoubted, RunOrphaned
from aiki.engine.ids import partition_of
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.observability import get_logger
from aiki.orchestrator.journals import with_what_is_recorded
from aiki.orchestrator.letters import send_letters_again
from aiki.orchestrator.timers import timer_fired
from aiki.ports.broker import OrchestratorBroker
from aiki.ports.clock import Clock
from aiki.ports.store import Store

__all__ = ["RebuildReport", "rebuild"]

log = get_logger(__name__)

_PAGE = 500
_REBUILDER = "rebuild"


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found, and what it sent."""

    unfinished: int = 0
    dispatched: int = 0
    """Runs that were queued, held by a worker, or waiting for something elsewhere, and are dispatched again."""
    timers: int = 0
    """Wake-ups that were overdue."""
    outcomes: int = 0
    """Ends of child runs that were told to their parents again."""
    letters: int = 0
    """Letters about buried runs that were nowhere, and redrives of them that were lost."""

    def __add__(self, other: "RebuildReport") -> "RebuildReport":
        return RebuildReport(
            self.unfinished + other.unfinished,
            self.dispatched + other.dispatched,
            self.timers + other.timers,
            self.outcomes + other.outcomes,
            self.letters + other.letters,
        )


async def rebuild(
    store: Store,
    broker: OrchestratorBroker,
    clock: Clock,
    *,
    partitions: Collection[int] | None = None,
    blame: bool = False,
    timeout: float = 30.0,
) -> RebuildReport:
    """Send every unfinished run of *partitions* (all of them) what it needs to go on, and lost letters of buried ones.

    Holders that are alive are fenced and their runs go on elsewhere: this is for when the broker's
    queues are gone. With *blame*, runs that were executing count a recovery each, as when a worker dies: for the
    embedded mode, where the process that ended may have been killed by one of them.

    Raises:
        StoreUnavailableError, BrokerError: it got only so far; calling it again is harmless.
    """
    wanted = range(broker.partitions) if partitions is None else sorted(partitions)
    report = RebuildReport()
    last: str | None = None
    while runs := await store.unfinished(wanted, after=last, limit=_PAGE):
        last = runs[-1].run_id
        report += await _rebuild_page(runs, store, broker, clock, blame=blame, timeout=timeout)
    moment = Moment(clock.now(), "")
    letters = await send_letters_again(
        store, broker, lambda run: partition_of(run.run_id, broker.partitions) in wanted, moment, timeout=timeout
    )
    report += RebuildReport(letters=letters)
    log.info(
        "rebuild.done",
        unfinished=report.unfinished,
        dispatched=report.dispatched,
        timers=report.timers,
        letters=report.letters,
    )
    return report


async def _rebuild_page(
    runs: Sequence[RunState],
    store: Store,
    broker: OrchestratorBroker,
    clock: Clock,
    *,
    blame: bool,
    timeout: float,
) -> RebuildReport:
    moment = Moment(clock.now(), "")
    # As whoever owns their partitions will see them.
    stored = await store.load([run.run_id for run in runs])
    runs = [*(await with_what_is_recorded(store, stored.values())).values()]
    dispatches = [command for run in runs for command in _dispatch(run, moment, blame=blame)]
    timers = [
        SendEvent(event=timer_fired(run, run.due_at, moment.now))
        for run in runs
        if run.due_at is not None and run.due_at <= moment.now and not _is_dispatched(run)
    ]
    outcomes = await _outcomes_of_children(runs, store, moment)
    # What can be told to a run comes first: it may be all that the run waits for.
    commands: list[Command] = [*outcomes, *dispatches, *timers]
    if commands:
        await broker.send(commands, timeout=timeout)
    return RebuildReport(len(runs), len(dispatches), len(timers), len(outcomes))


def _rebuilt(run: RunState) -> str:
    return f"rebuild:{run.pair.epoch}:{run.pair.dispatch_id}"


def _is_dispatched(run: RunState) -> bool:
    return run.status in (RunStatus.QUEUED, RunStatus.RUNNING)


def _dispatch(run: RunState, moment: Moment, *, blame: bool) -> tuple[Command, ...]:
    """Doubt a dispatch that nobody has taken, call one that somebody had orphaned, and have lost orders given again."""
    if run.status is RunStatus.QUEUED:
        return doubt(run, moment)
    if run.status is RunStatus.RUNNING:
        orphaned = RunOrphaned(
            id=_rebuilt(run),
            run_id=run.run_id,
            at=moment.now,
            incarnation=run.incarnation,
            pair=run.pair,
            worker=_REBUILDER,
            handed_back=not blame,
        )
        return (SendEvent(event=orphaned),)
    if awaits_elsewhere(run):
        doubted = DispatchDoubted(
            id=_rebuilt(run),
            run_id=run.run_id,
            at=moment.now,
            incarnation=run.incarnation,
            pair=run.pair,
            queues_lost=True,
        )
        return (SendEvent(event=doubted),)
    return ()


async def _outcomes_of_children(runs: Sequence[RunState], store: Store, moment: Moment) -> Sequence[Command]:
    """Tell parents again of the ends of their children: the word may have been in a queue that is gone."""
    pending = {name for run in runs for name in run.pending}
    if not pending:
        return ()
    children = await store.load(pending)
    return [
        command
        for child in children.values()
        if child.status.is_final
        for command in outcome(child, moment)
        if isinstance(command, SendEvent)
    ]
