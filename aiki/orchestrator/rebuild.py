"""Rebuilding: MongoDB alone says what every queue should hold.

For a broker that lost its queues, and for the embedded one, which keeps none. Nothing
is put into a queue directly: each run is sent an event that lets the usual way of
deciding make a new dispatch (rule 1), so that rebuilding twice, or a queue that turns
out not to be lost, does no harm.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from aiki.engine.changing import replace
from aiki.engine.commands import Command, SendEvent
from aiki.engine.decision import Moment
from aiki.engine.dispatching import awaits_elsewhere, doubt
from aiki.engine.ending import outcome
from aiki.engine.events import DispatchDoubted, JournalAppended, RunOrphaned, RunStarted
from aiki.engine.holding import learnt
from aiki.engine.ids import partition_of
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.observability import get_logger
from aiki.orchestrator.journals import cut
from aiki.orchestrator.letters import send_letters_again
from aiki.orchestrator.timers import timer_fired
from aiki.ports.broker import OrchestratorBroker
from aiki.ports.clock import Clock
from aiki.ports.store import Store

__all__ = ["RebuildReport", "rebuild"]

log = get_logger(__name__)

_PAGE = 500
_REBUILDER = "rebuild"

_READS = 20  # Journals that are read at the same time.
_ENTRIES_MAX = 1_000
_ENTRIES_BYTES_MAX = 1024 * 1024


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
    found = await _relearnt(runs, store, moment)
    lessons = [lesson for one in found for lesson in one.lessons]
    runs = [one.run for one in found]
    dispatches = [command for run in runs for command in _dispatch(run, moment, blame=blame)]
    timers = [
        SendEvent(event=timer_fired(run, run.due_at, moment.now))
        for run in runs
        if run.due_at is not None and run.due_at <= moment.now and not _is_dispatched(run)
    ]
    outcomes = await _outcomes_of_children(runs, store, moment)
    # What can be told to a run comes first: it may be all that the run waits for. And before a run can be told of
    # the end of anything, it has to know that it started that.
    commands: list[Command] = [*lessons, *outcomes, *dispatches, *timers]
    if commands:
        await broker.send(commands, timeout=timeout)
    return RebuildReport(len(runs), len(dispatches), len(timers), len(outcomes))


@dataclass(frozen=True, slots=True)
class _Found:
    """A run as it is going to be after its lessons."""

    run: RunState
    lessons: tuple[SendEvent, ...] = ()


async def _relearnt(runs: Sequence[RunState], store: Store, moment: Moment) -> Sequence[_Found]:
    """Find what is in the journals of *runs* and not in themselves.

    The journal is written first. Whoever had the run to write next may have been ended before, and the event
    that would have brought it about again may have been lost with the broker.
    """
    found: list[_Found] = []
    for start in range(0, len(runs), _READS):
        some = runs[start : start + _READS]
        journals = await asyncio.gather(*(_unlearnt(run, store) for run in some))
        found += [_lessons(run, entries, moment) for run, entries in zip(some, journals, strict=True)]
    return found


async def _unlearnt(run: RunState, store: Store) -> Sequence[JournalEntry]:
    if not (_is_dispatched(run) or run.status.is_suspended or run.status is RunStatus.PAUSED):
        return ()
    # A dispatch writes the run with everything up to its base.
    return await store.journal(run, after_seq=max(run.learnt_seq, run.base_seq))


def _lessons(run: RunState, entries: Sequence[JournalEntry], moment: Moment) -> _Found:
    """Let the holder say again what it had said; where its start was lost too, somebody starts in its place."""
    after = learnt(run, tuple(entries))
    if after is run:
        return _Found(run)
    events: list[RunStarted | JournalAppended] = []
    if run.status is RunStatus.QUEUED:
        after = replace(after, status=RunStatus.RUNNING, holder=_REBUILDER)
        events.append(
            RunStarted(
                id=f"{_rebuilt(run)}:started",
                run_id=run.run_id,
                at=run.dispatched_at or moment.now,
                incarnation=run.incarnation,
                pair=run.pair,
                worker=_REBUILDER,
            )
        )
    events += [
        JournalAppended(
            id=f"{_rebuilt(run)}:{part[0].seq}",
            run_id=run.run_id,
            at=moment.now,
            incarnation=run.incarnation,
            pair=run.pair,
            worker=after.holder or _REBUILDER,
            entries=tuple(part),
        )
        for part in _parts(entries)
    ]
    return _Found(after, tuple(SendEvent(event=event) for event in events))


def _parts(entries: Sequence[JournalEntry]) -> Iterator[Sequence[JournalEntry]]:
    """Part *entries* into what fits into a message."""
    while entries:
        part = cut(entries, entries_max=_ENTRIES_MAX, bytes_max=_ENTRIES_BYTES_MAX) or entries[:1]
        yield part
        entries = entries[len(part) :]


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
