"""What must hold in every simulation, whatever went wrong."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange
from aiki.sdk.context import TaskContext
from aiki.testing.simulation.loop import running_process
from aiki.testing.simulation.store import done_at_once
from aiki.testing.simulation.world import World

__all__ = ["Watch"]

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


class Watch:
    """Looks at everything that is stored and executed, and notes what must not be."""

    def __init__(self, world: World) -> None:
        self.violations: list[str] = []
        self.executions = 0
        self._world = world
        self._runs: dict[str, RunState] = {}
        self._executed: list[tuple[str, str, int, float, str]] = []
        world.store.on_commit = self._on_commit

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
        order = member.orders.get(context.run_id)
        self._world.network.say(process, f"executes {context.task} of {context.run_id[-6:]}, attempt {context.attempt}")
        if order is not None and context.task != "remote":
            facts = (context.run_id, context.idempotency_key, order.base_seq, self._world.loop.time(), str(process))
            self._executed.append(facts)

    def _on_commit(self, changes: Sequence[RunChange], stale: Collection[str]) -> None:
        for change in changes:
            if change.writes_run and change.after.run_id not in stale:
                self._on_written(change.after)

    def _on_written(self, after: RunState) -> None:
        before = self._runs.get(after.run_id)
        if before is not None and after.revision <= before.revision:
            return  # The same change again.
        self._runs[after.run_id] = after
        self._world.network.say("store", f"{_brief(after)}")
        if before is None:
            return
        where = f"run {after.run_id[-6:]}, revision {after.revision}"
        if after.revision != before.revision + 1:
            self.complain(f"{where}: a revision was skipped after {before.revision}")
        if after.pair.epoch < before.pair.epoch or after.base_seq < before.base_seq:
            self.complain(f"{where}: the epoch or the base went back")
        if after.pair.epoch == before.pair.epoch:
            self._check_one_dispatch(before, after, where)
        if before.status is RunStatus.COMPLETED and after.status is not RunStatus.COMPLETED:
            self.complain(f"{where}: it was completed, and is {after.status}")

    def _check_one_dispatch(self, before: RunState, after: RunState, where: str) -> None:
        if after.pair != before.pair:
            self.complain(f"{where}: one epoch, two dispatches")
        if before.holder is not None and after.holder not in (None, before.holder):
            self.complain(f"{where}: one dispatch, two holders: {before.holder} and {after.holder}")

    # -- at the end ------------------------------------------------------------------------------

    @property
    def runs(self) -> Collection[RunState]:
        """Every run as it was last written."""
        return self._runs.values()

    def check_journals(self) -> None:
        """See that what was learnt was learnt once, in order, and was not done again."""
        for run in done_at_once(self._world.store.load(list(self._runs))).values():
            entries = done_at_once(self._world.store.journal(run))
            self._check_journal(run, entries)
            self._check_executions(run, entries)

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
        return [*left, *self._letters()]

    def _letters(self) -> list[str]:
        page = done_at_once(self._world.store.dead_letters(limit=1000, cursor=None, include_done=True))
        buried = {run.run_id for run in self.runs if run.recoveries >= run.recoveries_max}
        return [
            f"a dead letter: {stored.letter.reason}: {stored.letter.detail}"
            for stored in page.letters
            if stored.letter.run_id not in buried
        ]


def _brief(run: RunState) -> str:
    facts: list[Any] = [run.status, f"e{run.pair.epoch}", f"base={run.base_seq}", f"seq={run.last_seq}"]
    if run.holder:
        facts.append("held")
    if run.recoveries:
        facts.append(f"recoveries={run.recoveries}")
    return f"run {run.run_id[-6:]} {' '.join(map(str, facts))}"
