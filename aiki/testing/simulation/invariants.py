"""What must hold in every simulation, whatever went wrong."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from operator import eq
from typing import Any

from aiki.engine.commands import ExecuteRun
from aiki.engine.events import (
    CancelRequested,
    Event,
    JournalAppended,
    PauseRequested,
    ResumeRequested,
    RunRequested,
    RunStarted,
    SignalSent,
    TaskScheduled,
)
from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange
from aiki.sdk.context import TaskContext
from aiki.testing.simulation.ledger import Ledger, brief
from aiki.testing.simulation.loop import running_process
from aiki.testing.simulation.store import done_at_once
from aiki.testing.simulation.workload import Job
from aiki.testing.simulation.world import Member, Order, World

__all__ = ["Watch", "followed"]

_OUTCOMES = frozenset(
    {
        EntryKind.TASK_COMPLETED,
        EntryKind.TASK_FAILED,
        EntryKind.CHILD_COMPLETED,
        EntryKind.CHILD_FAILED,
        EntryKind.SIGNAL_RECEIVED,
        EntryKind.TIMER_FIRED,
    }
)

# Workflows in which each task needs what came of the one before.
_ONE_BY_ONE = frozenset({"sequence", "marathon", "tended"})

# So long a holder that lost its run may go on: until its lease is over, by a clock that may have been set back.
FENCED_SECONDS = 60.0

# So far ahead of the world's a clock may be that was set several times.
CLOCKS_AHEAD = timedelta(seconds=120)

# One that was frozen does what it was about to do before it learns anything.
WAKING_SECONDS = 5.0


class Watch:
    """Looks at everything that is stored and executed, and notes what must not be."""

    def __init__(self, world: World, jobs: Sequence[Job]) -> None:
        self.violations: list[str] = []
        self.executions = 0
        self._world = world
        self._jobs = jobs
        self._ledger = Ledger(self.complain, world.loop.time)
        self._executed: list[tuple[str, str, int, float, str]] = []
        world.store.on_commit = self._on_commit
        world.on_settled = self._on_settled
        world.on_put = self._on_put
        self._begun: dict[tuple[Pair, str], set[str]] = {}
        self.late: set[str] = set()
        """Runs of which something was written when they may have been gone."""
        self._left_behind: dict[str, list[JournalEntry]] = {}
        """What such writes left behind. It counts if the same request makes the run again: it is one incarnation."""
        self._mixed: set[str] = set()
        """Runs that were made again, of which such writes brought what their second life cannot be told from."""
        self.taken_at: dict[str, float] = {}
        """When the broker last took a client's request for a run; the client may have heard of it much later."""
        self._told: Counter[tuple[Pair, str]] = Counter()
        self._cancellations: set[str] = set()
        self._under_way: dict[tuple[Pair, int], int] = {}
        """The entries that the broker was told of, and how often it had lost everything by then."""
        self._acknowledged: set[tuple[Pair, int]] = set()
        self._ledger.was_lost = self._was_lost

    def complain(self, what: str) -> None:
        """Note that something is wrong."""
        self.violations.append(what)
        self._world.network.say("watch", f"!! {what}")

    # -- while it goes on ------------------------------------------------------------------------

    def on_attempt(self, context: TaskContext) -> None:
        """Note that an attempt of a task begins."""
        process = running_process()
        if process is None or process.is_dead:
            return
        self.executions += 1
        member = next(member for member in self._world.members.values() if member.process is process)
        order = followed(member.orders.get(context.run_id), member.parts["worker"].orders.get(context.run_id))
        self._world.network.say(process, f"executes {context.task} of {context.run_id[-6:]}, attempt {context.attempt}")
        if order is not None and context.task != "remote":
            facts = (context.run_id, context.idempotency_key, order.base_seq, self._world.loop.time(), str(process))
            self._executed.append(facts)
            self._check_right_to(context.run_id, order, member)
            self._check_what_led_to(context, order.pair, member)
        if context.task == "poison" and not any(job.run_id == context.run_id and job.is_cured for job in self._jobs):
            self._world.loop.later(0.01, lambda: self._world.kill(member, after=0.5))

    def _check_right_to(self, run_id: str, order: Order, member: Member) -> None:
        """See that whoever was refused has stopped."""
        account = self._ledger.accounts.get(run_id)
        if account is None:
            return
        # An orchestrator that was frozen may send an order long after another one has taken its place.
        known_since = max(account.moved_at, order.at, member.stood_still_until + WAKING_SECONDS)
        if self._world.loop.time() - known_since < FENCED_SECONDS:
            return
        run = account.run
        is_holder = run.pair == order.pair and (run.holder is None or run.holder in _names(member))
        if run.status.is_final or not is_holder:
            self.complain(
                f"run {run_id[-6:]}: {member.process} goes on with epoch {order.pair.epoch}, long after it lost it"
            )

    def _check_what_led_to(self, context: TaskContext, pair: Pair, member: Member) -> None:
        """See that, where one task follows the other, what came of those before is safe (rule 13)."""
        account, service = self._ledger.accounts.get(context.run_id), member.parts["worker"]
        if account is None or account.run.workflow not in _ONE_BY_ONE:
            return
        dispatch = (pair, service.name)
        begun = self._begun.setdefault(dispatch, set())
        begun.add(context.idempotency_key)
        if len(begun) - 1 > self._told[dispatch]:
            self.complain(f"run {context.run_id[-6:]}: {context.task} began before what led to it was confirmed")

    def _on_put(self, value: Any) -> None:
        for event in value if isinstance(value, tuple) else ():
            if isinstance(event, RunRequested):
                self.taken_at[event.run_id] = self._world.loop.time()
            if isinstance(event, RunStarted):
                self._ledger.started.add(event.pair)
            if isinstance(event, JournalAppended):
                ended = sum(entry.kind is EntryKind.TASK_COMPLETED for entry in event.entries)
                self._told[event.pair, event.worker] += ended
            for entry in _entries(event):
                self._under_way[entry] = self._wipes

    @property
    def _wipes(self) -> int:
        return self._world.faults.get("broker is lost", 0)

    def _was_lost(self, pair: Pair, seq: int) -> bool:
        told_after = self._under_way.get((pair, seq), self._wipes)
        return told_after < self._wipes and (pair, seq) not in self._acknowledged

    def _on_commit(self, changes: Sequence[RunChange], stale: Collection[str]) -> None:
        for change in changes:
            run_id = change.after.run_id
            is_late = self.is_over(run_id) and bool(change.journal or change.before is None)
            if is_late:
                self.late.add(run_id)
            if run_id in stale or (is_late and change.before is not None):
                # What a write leaves behind of a run that is gone contradicts nothing.
                self._left_behind.setdefault(run_id, []).extend(change.journal if is_late else ())
                continue
            left = self._left_behind.get(run_id, ())
            if change.before is None and not self._ledger.was_made(change.after):
                self._mixed.discard(run_id)  # Another request made this one: nothing of the others counts for it.
            if run_id in self.late and self._ledger.is_of_another(change):
                self._mixed.add(run_id)
            if run_id in self._mixed:
                self._begin_anew(run_id)
            elif self._ledger.is_made_again(change):
                self._begin_anew(run_id, only=left)
                self._mixed.update([run_id] if left else ())
            elif self._ledger.note(change) and self._world.network.is_traced:
                self._world.network.say("store", brief(change.after))

    def _begin_anew(self, run_id: str, *, only: Sequence[JournalEntry] | None = None) -> None:
        """Take a run for what the store has of it now; with *only* these entries, if they are given."""
        store = self._world.store
        run = done_at_once(store.load([run_id])).get(run_id)
        if run is not None:  # By a clock that is ahead it may have expired once more.
            entries = done_at_once(store.journal(run))
            self._ledger.begin_anew(run, [entry for entry in entries if only is None or entry in only])

    def is_over(self, run_id: str) -> bool:
        """Tell whether a run may be gone already: retentions are shorter here than what some writes take."""
        account = self._ledger.accounts.get(run_id)
        if account is None or account.run.expires_at is None:
            return False
        if account.run.expires_at < self._world.clock.now():
            return True
        # Whoever removed it may have a clock that is ahead; what has been made in its place begins at 1.
        there = done_at_once(self._world.store.load([run_id])).get(run_id)
        is_gone = there is None or there.revision < account.run.revision
        return is_gone and account.run.expires_at < self._world.clock.now() + CLOCKS_AHEAD

    def _on_settled(self, bodies: Sequence[Any]) -> None:
        """See that what the broker forgets because an orchestrator has it is stored."""
        for body in bodies:
            for event in body if isinstance(body, tuple) else ():
                if isinstance(event, CancelRequested):
                    self._cancellations.add(event.id)
                self._acknowledged.update(_entries(event))
                if not self._is_kept(event):
                    self.complain(f"run {event.run_id[-6:]}: {event.type} was acknowledged, and is not stored: {event}")

    def _is_kept(self, event: Event) -> bool:
        account = self._ledger.accounts.get(event.run_id)
        run = None if account is None else account.run
        match event:
            case RunRequested():
                return run is not None
            case SignalSent() | CancelRequested() | PauseRequested() | ResumeRequested():
                return run is None or run.status.is_final or event.id in run.seen or self._came_too_late(run)
            case JournalAppended(entries=entries):
                return account is None or self._are_recorded(event, entries)
            case TaskScheduled(entry=JournalEntry() as entry):
                return account is None or self._are_recorded(event, (entry,))
            case _:
                return True

    def _came_too_late(self, run: RunState) -> bool:
        """Whether nothing is known of a run but a write of its request, which the broker lost.

        Words that came before the write, by somebody who was gone, found no run and were refused.
        """
        return run.revision == 1 and self.taken_at.get(run.run_id, math.inf) < self._world.wiped_at

    def _are_recorded(self, event: JournalAppended | TaskScheduled, entries: Sequence[JournalEntry]) -> bool:
        account = self._ledger.accounts[event.run_id]
        run = account.run
        if event.pair != run.pair or event.worker != run.holder or run.status is not RunStatus.RUNNING:
            return True  # It was refused, or the run has moved on, which is looked at when it does.
        alike = _is_same_step if event.run_id in self._mixed else eq
        return all(alike(account.recorded.get(entry.seq), entry) for entry in entries)

    # -- at the end ------------------------------------------------------------------------------

    @property
    def runs(self) -> Collection[RunState]:
        """Every run as it was last written."""
        return [account.run for account in self._ledger.accounts.values()]

    def has_ended(self, run_id: str) -> bool:
        """Whether it was written of a run that it ended; it may be gone since."""
        account = self._ledger.accounts.get(run_id)
        return account is not None and account.run.status.is_final

    def has_ever_ended(self, run_id: str) -> bool:
        """Whether a run ended, even if the same request has made it again since; that of another request is another."""
        account = self._ledger.accounts.get(run_id)
        return account is not None and (
            account.run.status.is_final or (run_id, account.run.incarnation) in self._ledger.ended
        )

    def lost_children(self, run_id: str) -> Collection[str]:
        """Name the operations of a run that failed because a child was buried."""
        account = self._ledger.accounts.get(run_id)
        return () if account is None else account.lost_children(self._ledger.buried)

    def was_cancelled_in_vain(self, run_id: str | None) -> bool:
        """Whether a run was opened again after all its cancellations: the last word counts."""
        account = self._ledger.accounts.get(run_id or "")
        return account is not None and account.was_cancelled_in_vain(self._cancellations)

    def check_journals(self) -> None:
        """See that what was learnt was learnt once, in order, and was not done again."""
        there = done_at_once(self._world.store.load([run.run_id for run in self.runs]))
        for run in self.runs:
            entries = done_at_once(self._world.store.journal(there.get(run.run_id, run)))
            if run.run_id in there:
                self._check_journal(run, entries)
                self._check_attempts(run, entries)
                self._check_executions(run, entries)
            elif not self.is_over(run.run_id):
                self.complain(f"run {run.run_id[-6:]} is gone before {run.expires_at}: it is {run.status}")
            elif entries and run.run_id not in self.late:
                self.complain(f"run {run.run_id[-6:]} is forgotten, and {len(entries)} entries of it are there")

    def _check_journal(self, run: RunState, entries: Sequence[JournalEntry]) -> None:
        where = f"run {run.run_id[-6:]} ({run.workflow})"
        if [entry.seq for entry in entries] != list(range(1, len(entries) + 1)):
            self.complain(f"{where}: the journal has gaps: {[entry.seq for entry in entries]}")
        for first, second in pairwise(entries):
            if second.at < first.at or second.epoch < first.epoch:
                self.complain(f"{where}: the stamp or epoch of #{second.seq} is before that of #{first.seq}")
        if any(entry.kind is EntryKind.RETRIED for entry in entries):
            return
        ended = Counter(entry.operation for entry in entries if entry.kind in _OUTCOMES)
        attempts = Counter(
            (entry.operation, entry.attempt) for entry in entries if entry.kind is EntryKind.ATTEMPT_FAILED
        )
        sources = Counter((entry.kind, entry.source) for entry in entries if entry.source is not None)
        for counted in (ended, attempts, sources):
            for what, times in counted.items():
                if times > 1:
                    self.complain(f"{where}: {what} was recorded {times} times")

    def _check_attempts(self, run: RunState, entries: Sequence[JournalEntry]) -> None:
        """See that retries were used up by what the tasks raised, and by nothing else."""
        where = f"run {run.run_id[-6:]} ({run.workflow})"
        failed: Counter[str] = Counter()
        for entry in entries:
            operation = entry.operation or ""
            if entry.kind is EntryKind.RETRIED:
                failed[operation] = 0
            elif entry.kind in (EntryKind.ATTEMPT_FAILED, EntryKind.TASK_FAILED, EntryKind.TASK_COMPLETED):
                if entry.attempt != failed[operation] + 1:
                    self.complain(
                        f"{where}: #{entry.seq} is attempt {entry.attempt} after {failed[operation]} failures"
                    )
                failed[operation] += 1
                if entry.failure is not None and not entry.failure.type.endswith("BusyError"):
                    self.complain(f"{where}: #{entry.seq} is a failure that no task has raised: {entry.failure}")
            elif (
                entry.kind is EntryKind.CANCEL_REQUESTED and run.failure is not None and "before" in run.failure.message
            ):
                self.complain(f"{where}: it was cancelled before it began, and #{entry.seq} says that it saw that")

    def _check_executions(self, run: RunState, entries: Sequence[JournalEntry]) -> None:
        recorded = {
            idempotency_key_of(run.run_id, run.incarnation, entry.operation or ""): entry
            for entry in entries
            if entry.kind in (EntryKind.TASK_COMPLETED, EntryKind.TASK_FAILED)
        }
        if any(entry.kind is EntryKind.RETRIED for entry in entries):
            return
        for run_id, key, base_seq, at, process in self._executed:
            entry = recorded.get(key) if run_id == run.run_id else None
            if entry is not None and entry.seq <= base_seq:
                self.complain(
                    f"run {run_id[-6:]}: {entry.operation} was executed at {at:.3f} by {process}, "
                    f"whose order had its outcome (#{entry.seq} of {base_seq})"
                )

    def left_over(self) -> list[str]:
        """Tell what is still there though everything is done."""
        hub = self._world.hub
        left = [
            f"queue {name} has {len(hub.ready(name))} messages, and {hub.held(name)} are held"
            for name in sorted(hub.queue_names)
            if hub.ready(name) or hub.held(name)
        ]
        if hub.retries.waiting:
            left.append(f"{hub.retries.waiting} retries wait")
        left += [
            f"run {run.run_id[-6:]} is completed, and something waits in it"
            for run in self.runs
            if run.status is RunStatus.COMPLETED and (run.inbox or run.pending or run.waits)
        ]
        for member in self._world.members.values():
            worker = member.parts.get("worker")
            if worker is not None and not member.process.is_dead and worker.held_runs:
                left.append(f"{member.process} still holds {worker.held_runs}")
        return [*left, *self._presences(), *self._letters()]

    def _presences(self) -> Iterator[str]:
        """Name who still counts as present and is gone."""
        there = {
            name for member in self._world.members.values() if not member.process.is_dead for name in _names(member)
        }
        now = self._world.clock.now()
        for kind in ("orchestrator", "worker"):
            for presence in done_at_once(self._world.store.present(kind, now=now)):
                if presence.id not in there:
                    yield f"{kind} {presence.id} counts as present until {presence.expires_at}"

    def _letters(self) -> Iterator[str]:
        """Name dead letters without a reason, and runs that were buried without one."""
        page = done_at_once(self._world.store.dead_letters(limit=1000, cursor=None, include_done=True))
        about = {stored.letter.run_id for stored in page.letters}
        for stored in page.letters:
            if stored.letter.run_id not in self._ledger.buried:
                yield f"a dead letter: {stored.letter.reason}: {stored.letter.detail}"
        for run_id, buried_at in self._ledger.buried.items():
            if run_id not in about and not self._is_forgotten_since(run_id, buried_at):
                yield f"run {run_id[-6:]} was buried, and there is no letter"

    def _is_forgotten_since(self, run_id: str, buried_at: float) -> bool:
        """Tell whether the broker lost a letter, and the run expired: then nobody can know that there was one."""
        is_gone = run_id in self._ledger.made_again or self.is_over(run_id)
        return is_gone and self._world.wiped_at > buried_at


def _entries(event: Event) -> Iterator[tuple[Pair, int]]:
    """Name what a worker says that it has learnt."""
    if isinstance(event, JournalAppended):
        yield from ((event.pair, entry.seq) for entry in event.entries)
    elif isinstance(event, TaskScheduled) and event.entry is not None:
        yield event.pair, event.entry.seq


def _is_same_step(stored: JournalEntry | None, told: JournalEntry) -> bool:
    """Whether two lives of a run learnt the same under one number and epoch: what came first into the store stays."""
    facts = ("seq", "epoch", "kind", "operation", "attempt", "source", "payload", "failure")
    return stored is not None and all(getattr(stored, name) == getattr(told, name) for name in facts)


def followed(arrived: Order | None, held: ExecuteRun | None) -> Order | None:
    """Tell which order of a run a worker follows: the last that has *arrived*, once it has looked at it.

    What arrives while it is frozen it has not seen when it thaws, and may be taken from it before it does.
    """
    if arrived is None or held is None or held.pair == arrived.pair:
        return arrived
    return Order(held.pair, held.base_seq, held.incarnation, arrived.at)


def _names(member: Member) -> Collection[str]:
    """Tell what a process calls itself."""
    service = member.parts.get("worker")
    return {str(member.process)} if service is None else {service.name}
