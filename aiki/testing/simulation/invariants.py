"""What must hold in every simulation, whatever went wrong."""

import asyncio
import json
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
    LeaseRenewed,
    PauseRequested,
    ResumeRequested,
    RunCompleted,
    RunRequested,
    RunStarted,
    RunSuspended,
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
from aiki.testing.simulation.workload import NOT_CANCELLED, UNHEARD, Job
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

# So long a holder that lost its run may go on after its lease is over, by a clock that may have been set back.
FENCED_SECONDS = 30.0

# Once nothing is broken any more, whoever holds a run has heard by then what was said to it.
HEARING_SECONDS = 30.0

# How the world calls it when a clock is set.
_CLOCK_FAULTS = frozenset({"clock steps", "lag"})

# What comes of runs to which something was said, if they have not heard it.
_DEAF = frozenset(json.dumps(result) for result in (NOT_CANCELLED, UNHEARD))

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
        self.deeds: Counter[str] = Counter()
        """How often something was done that little depends on while all is well."""
        self._said_at: dict[str, float] = {}
        """When the broker took the last cancellation or signal for a run."""
        self._paused_at: dict[str, float] = {}
        """When it took a pause, of the runs to which nothing else was said since."""
        self._renewed_at: dict[Pair, list[float]] = {}
        self._learnt: dict[Pair, int] = {}
        """How far the journal goes with which a holder let its run rest, or end."""
        self._attempts: list[tuple[Member, ExecuteRun, asyncio.Task[Any] | None]] = []
        """Those that may still be under way."""

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
            self._check_company(member.parts["worker"].orders.get(context.run_id), member)
            self._check_rest(context.run_id)
        if context.task == "poison" and not any(job.run_id == context.run_id and job.is_cured for job in self._jobs):
            self._world.loop.later(0.01, lambda: self._world.kill(member, after=0.5))

    def on_progress(self, context: TaskContext) -> None:
        """Note that an attempt is still under way."""
        process = running_process()
        if process is None or process.is_dead:
            return
        member = next(member for member in self._world.members.values() if member.process is process)
        order = followed(member.orders.get(context.run_id), member.parts["worker"].orders.get(context.run_id))
        if order is not None:
            self._check_right_to(context.run_id, order, member)

    def _check_company(self, order: ExecuteRun | None, member: Member) -> None:
        """See that a run under suspicion has nothing beside it (rule 4)."""
        if order is None:
            return
        held = member.parts["worker"].orders
        self._attempts = [
            attempt
            for attempt in self._attempts
            if attempt[2] is not None and not attempt[2].done() and not attempt[0].process.is_dead
        ]
        for other, beside, _ in self._attempts:
            is_here = other is member and held.get(beside.run_id) is beside and beside.run_id != order.run_id
            if is_here and (order.alone or beside.alone):
                names = f"{order.run_id[-6:]} and {beside.run_id[-6:]}"
                self.complain(f"{member.process} executes {names}, of which one has to be alone")
        self._attempts.append((member, order, asyncio.current_task()))

    def _check_rest(self, run_id: str) -> None:
        """See that nothing begins in a run that was paused long ago."""
        paused_at, account = self._paused_at.get(run_id, math.inf), self._ledger.accounts.get(run_id)
        # One that was queued is at rest already: whoever takes its order is refused.
        is_held = account is not None and account.run.status is RunStatus.RUNNING
        if is_held and run_id not in self._ledger.buried and self._is_long_since(paused_at):
            self.complain(f"run {run_id[-6:]} goes on, and was paused at {paused_at:.3f}")

    def _is_long_since(self, moment: float) -> bool:
        """Whether *moment* is past, and since then nothing was broken for so long that all of it has been heard."""
        return self._world.loop.time() - max(moment, self._world.healed_at) > HEARING_SECONDS

    def _check_right_to(self, run_id: str, order: Order, member: Member) -> None:
        """See that whoever was refused has stopped."""
        account = self._ledger.accounts.get(run_id)
        if account is None:
            return
        # An orchestrator that was frozen may send an order long after another one has taken its place.
        known_since = max(account.moved_at, order.at, member.stood_still_until + WAKING_SECONDS)
        if self._world.loop.time() - known_since < self._world.circumstances.worker.lease + FENCED_SECONDS:
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
        self._check_slots()
        for event in value if isinstance(value, tuple) else ():
            self._note_word(event)
            if isinstance(event, LeaseRenewed):
                self.deeds["leases renewed"] += 1
                self._renewed_at.setdefault(event.pair, []).append(self._world.loop.time())
            if isinstance(event, RunSuspended | RunCompleted):
                self._learnt[event.pair] = event.last_seq
            if isinstance(event, RunStarted):
                self._ledger.started.add(event.pair)
            if isinstance(event, JournalAppended):
                ended = sum(entry.kind is EntryKind.TASK_COMPLETED for entry in event.entries)
                self._told[event.pair, event.worker] += ended
            for entry in _entries(event):
                self._under_way[entry] = self._wipes

    def _note_word(self, event: Event) -> None:
        """Note what a client says, as the broker takes it."""
        now, run_id = self._world.loop.time(), event.run_id
        match event:
            case RunRequested():
                self.taken_at[run_id] = now
                self._said_at.pop(run_id, None)
                self._paused_at.pop(run_id, None)
            case CancelRequested() | SignalSent():
                self._said_at[run_id] = now
                self._paused_at.pop(run_id, None)
            case PauseRequested():
                self._paused_at[run_id] = now
            case ResumeRequested():
                self._paused_at.pop(run_id, None)
            case _:
                pass

    def _check_slots(self) -> None:
        """See that nobody takes much more than it has slots for.

        An order that is acknowledged because its run goes on under a lease makes room for another one, until the broker
        hears that there is none. All slots may do so at once, so there may be as many more, and no others.
        """
        slots = self._world.circumstances.worker.max_concurrent_runs
        for member in self._world.members.values():
            worker = member.parts.get("worker")
            if worker is not None and not member.process.is_dead and len(worker.held_runs) > 2 * slots:
                self.complain(f"{member.process} holds {len(worker.held_runs)} runs, and has {slots} slots")

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
            elif self._ledger.note(change):
                self._note_deeds(change)
                self._check_end(change)
                if self._world.network.is_traced:
                    self._world.network.say("store", brief(change.after))

    def _note_deeds(self, change: RunChange) -> None:
        """Count what became of a run that was held under a lease, or was taken care of by a sweep."""
        before, after = change.before, change.after
        if before is None:
            return
        if before.pair != after.pair:
            self.deeds["orders given again"] += after.cause.startswith("lost:")
            self.deeds["holders given up"] += after.cause.startswith("gone:")
            self._check_punctuality(before, after)
        if before.lease_until is None:
            return
        if before.pair != after.pair and after.cause.startswith("timer:"):
            self.deeds["leases expired"] += 1
            self._check_lease(before)
        elif before.pair == after.pair and after.status is RunStatus.RUNNING:
            self.deeds["words to leased runs"] += any(
                getattr(before, name) != getattr(after, name) and getattr(after, name)
                for name in ("cancel_requested", "pause_requested", "inbox")
            )

    def _check_punctuality(self, before: RunState, after: RunState) -> None:
        """See that a timer fires, whoever should have fired it."""
        due_at, now = before.wake_at, self._world.clock.now()
        if before.status.is_suspended and after.cause.startswith("timer:") and due_at is not None:
            late = (now - due_at).total_seconds()
            if late > self._world.circumstances.profile.late_max:
                self.complain(f"run {after.run_id[-6:]} waited until {due_at}, and was woken {late:.3f} s late")

    def _check_lease(self, run: RunState) -> None:
        """See that nobody loses a run who renews its lease of it in time.

        What is said by somebody who was frozen may come when its time is over and that is being written. And leases go
        by the clocks of orchestrators: where one of those was set, they may be over for another one at once.
        """
        if not _CLOCK_FAULTS.isdisjoint(self._world.faults):
            return
        now, lease = self._world.loop.time(), self._world.circumstances.worker.lease
        *earlier, last = self._renewed_at.get(run.pair, [-math.inf])
        if now - last < lease / 2 and (not earlier or now - earlier[-1] < lease * 0.8):
            self.complain(
                f"run {run.run_id[-6:]} was taken from its holder, who renewed its lease {now - last:.3f} s ago"
            )

    def _check_end(self, change: RunChange) -> None:
        """See that what rests or is over has learnt what its holder had, and heard what was said to it."""
        before, after = change.before, change.after
        if before is None or before.pair != after.pair or before.status is not RunStatus.RUNNING:
            return
        where = f"run {after.run_id[-6:]} ({after.workflow})"
        if after.status.is_suspended or after.status is RunStatus.COMPLETED:
            learnt, end = self._learnt.get(after.pair, 0), self._ledger.accounts[after.run_id].end
            if end < learnt:
                self.complain(f"{where} is {after.status} with #{end}, and its holder had learnt #{learnt}")
        is_deaf = after.result in _DEAF and not self.was_cancelled_in_vain(after.run_id)
        if is_deaf and self._is_long_since(self._said_at.get(after.run_id, math.inf)):
            self.complain(f"{where} ended with {after.result}, long after that was said")

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
