"""The ledger: what every run was, according to each write, and what may not follow from what.

It is kept by whoever sees all writes of the store, and knows more than any part of Aiki:
what was recorded once, who was bound to which dispatch, and when that was decided.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange

__all__ = ["Account", "Ledger", "brief"]

# A run is dispatched when it was lost, and when something came for it. What goes round in circles needs no reason.
IDLE_DISPATCHES_MAX = 60

# Not every dispatch that comes to nothing was lost: some were given back in order. No more than these, and as many.
LOSSES_MAX = 20

_FROM_ELSEWHERE = frozenset(
    {EntryKind.TASK_COMPLETED, EntryKind.TASK_FAILED, EntryKind.ATTEMPT_FAILED, EntryKind.SIGNAL_RECEIVED}
)


@dataclass(slots=True, eq=False)
class Account:
    """What is known of one run."""

    run: RunState
    """As it was last written."""
    versions: dict[int, RunState] = field(default_factory=dict)
    recorded: dict[int, JournalEntry] = field(default_factory=dict)
    """What the journal holds, of what counts."""
    holders: dict[int, str] = field(default_factory=dict)
    """Who was bound to the dispatch of each epoch, or recorded something under it."""
    barren: int = 0
    """Dispatches in a row that were started and recorded nothing."""
    idle: int = 0
    """Dispatches in a row between which nothing changed but the dispatch."""
    moved_at: float = 0.0
    """When it was last decided who may execute it."""
    outdated: set[str] = field(default_factory=set)
    """What clients had said by the time that it was opened again, which says the opposite of a cancellation."""

    @property
    def end(self) -> int:
        """How far the journal goes without a gap."""
        seq = 0
        while seq + 1 in self.recorded:
            seq += 1
        return seq

    @property
    def has_learnt(self) -> bool:
        """Whether anything was recorded under the current dispatch but what time it is."""
        epoch = self.run.pair.epoch
        return any(entry.epoch == epoch and entry.kind is not EntryKind.CLOCK for entry in self.recorded.values())

    def lost_children(self, buried: Collection[str]) -> Collection[str]:
        """Name the operations that failed because the child that they had started last is among those *buried*."""
        failed = (entry for _, entry in sorted(self.recorded.items()) if entry.kind is EntryKind.CHILD_FAILED)
        children = {entry.operation: entry.source for entry in failed}
        return {operation for operation, child in children.items() if operation is not None and child in buried}

    def was_cancelled_in_vain(self, cancellations: set[str]) -> bool:
        """Whether those of *cancellations* that were counted are outdated, and none was recorded, which would stay."""
        counted = cancellations.intersection(self.run.seen)
        is_recorded = any(entry.kind is EntryKind.CANCEL_REQUESTED for entry in self.recorded.values())
        return bool(counted) and counted <= self.outdated and not is_recorded


class Ledger:
    """Notes what is written, and complains of what must not be."""

    def __init__(self, complain: Callable[[str], None], time: Callable[[], float]) -> None:
        self.accounts: dict[str, Account] = {}
        self.buried: dict[str, float] = {}
        """The runs that were buried, and when that was last."""
        self.made_again: set[str] = set()
        """The runs that expired, and were asked for once more."""
        self.ended: set[tuple[str, str]] = set()
        """The runs that ended, with their incarnations, whatever became of them."""
        self.started: set[Pair] = set()
        """The dispatches that a worker has begun, as far as the broker has heard."""
        self.was_lost: Callable[[Pair, int], bool] = _was_kept
        """Whether nobody was told that an entry of a dispatch is stored, and the broker lost what brings it."""
        self._made: set[tuple[str, str]] = set()
        """The runs that were made, with their incarnations, whatever became of them."""
        self._complain = complain
        self._time = time

    def note(self, change: RunChange) -> bool:
        """Note a change that was kept; tells whether it wrote a run in a way that was not seen before."""
        account = self.accounts.get(change.after.run_id)
        if change.journal and account is not None:
            self._note_entries(account, change)
        if change.after.status.is_final:
            self.ended.add((change.after.run_id, change.after.incarnation))
        return change.writes_run and self._note_run(account, change)

    def is_of_another(self, change: RunChange) -> bool:
        """Whether a change was meant for an earlier run that the same request had made, and hit the later one.

        The earlier one had expired when a write that came too late made the later one. Where both are of
        one revision, the store cannot tell them apart; nor can it where entries are of an epoch that the later
        one has reached, or will reach.
        """
        account, before = self.accounts.get(change.after.run_id), change.before
        if account is None or before is None or before.pair == account.run.pair:
            return False
        run = account.run
        hits_run = change.writes_run and before.revision == run.revision
        hits_journal = bool(change.journal) and before.pair.epoch >= run.pair.epoch
        return before.incarnation == run.incarnation and (hits_run or hits_journal)

    def is_made_again(self, change: RunChange) -> bool:
        """Whether a change makes a run again that had ended, for a request that had made it before, the last or not."""
        account = self.accounts.get(change.after.run_id)
        if account is None or change.before is not None:
            return False
        return _is_new(account.run, change.after) and self.was_made(change.after)

    def was_made(self, run: RunState) -> bool:
        """Whether the request that makes *run* has made it before."""
        return (run.run_id, run.incarnation) in self._made

    def begin_anew(self, run: RunState, entries: Sequence[JournalEntry]) -> None:
        """Take a run for what it is now, with *entries* as what counts of its journal."""
        recorded = {entry.seq: entry for entry in entries}
        self.accounts[run.run_id] = Account(run, {run.revision: run}, recorded, moved_at=self._time())

    # -- what was learnt -------------------------------------------------------------------------

    def _note_entries(self, account: Account, change: RunChange) -> None:
        run = account.run
        if change.after.incarnation != run.incarnation:
            return
        where = f"run {run.run_id[-6:]}"
        for entry in change.journal:
            if change.before is not None and entry.epoch < change.before.pair.epoch:
                self._complain(f"{where}: #{entry.seq} of epoch {entry.epoch} was accepted in {change.before.pair}")
            there = account.recorded.get(entry.seq)
            if there is not None and there != entry:
                self._complain(f"{where}: #{entry.seq} was recorded as {there}, and is {entry}")
            elif entry.epoch == run.pair.epoch:
                account.recorded[entry.seq] = entry
                self._note_writer(account, entry)

    def _note_writer(self, account: Account, entry: JournalEntry) -> None:
        if entry.worker is None or (entry.source is not None and entry.kind in _FROM_ELSEWHERE):
            return
        holder = account.holders.setdefault(entry.epoch, entry.worker)
        if holder != entry.worker:
            where = f"run {account.run.run_id[-6:]}, #{entry.seq}"
            self._complain(f"{where}: {holder} holds epoch {entry.epoch}, and {entry.worker} recorded something")

    # -- what became of runs ---------------------------------------------------------------------

    def _note_run(self, account: Account | None, change: RunChange) -> bool:
        after = change.after
        if account is None or _is_new(account.run, after):
            if account is not None:
                self.made_again.add(after.run_id)
            self._made.add((after.run_id, after.incarnation))
            self.accounts[after.run_id] = Account(after, {after.revision: after}, moved_at=self._time())
            return True
        before = account.run
        where = f"run {after.run_id[-6:]}, revision {after.revision}"
        if after.revision <= before.revision:
            if _written(account.versions.get(after.revision)) != _written(after):
                self._complain(f"{where}: it was written over revision {before.revision}")
            return False  # The same change again.
        for what in (*_wrong(before, after), *_invented(account, after)):
            self._complain(f"{where}: {what}")
        if before.pair != after.pair:
            self._note_dispatch(account, change, where)
        if before.status.is_final and not after.status.is_final:
            account.outdated.update(before.seen)
        self._note_holder(account, after, where)
        if after.status is RunStatus.DEAD_LETTERED and before.status is not RunStatus.DEAD_LETTERED:
            self._check_burial(account, after, where)
        if (
            before.pair != after.pair
            or before.holder != after.holder
            or before.status.is_final != after.status.is_final
        ):
            account.moved_at = self._time()
        account.run = account.versions[after.revision] = after
        return True

    def _note_holder(self, account: Account, after: RunState, where: str) -> None:
        if after.holder is not None:
            bound = account.holders.setdefault(after.pair.epoch, after.holder)
            if bound != after.holder:
                self._complain(f"{where}: one dispatch, two holders: {bound} and {after.holder}")

    def _note_dispatch(self, account: Account, change: RunChange, where: str) -> None:
        before, after, end = account.run, change.after, account.end
        if any(not self._is_late(before.pair, seq, change) for seq in range(after.base_seq + 1, end + 1)):
            self._complain(f"{where}: what was recorded up to #{end} is forgotten, it begins at #{after.base_seq}")
        is_fruitful = account.has_learnt or before.status.is_final
        account.barren = 0 if is_fruitful else account.barren + (before.pair in self.started)
        # Behind a gap there may be what never counted.
        account.recorded = {seq: entry for seq, entry in account.recorded.items() if seq <= after.base_seq}
        has_learnt = after.base_seq > before.base_seq
        is_idle = not has_learnt and _reasons(before) == _reasons(after)
        account.idle = account.idle + 1 if is_idle else 0
        if account.barren == 2 * after.recoveries_max + LOSSES_MAX:
            self._complain(f"{where}: {account.barren} workers in a row began it and recorded nothing")
        if account.idle == IDLE_DISPATCHES_MAX:
            self._complain(f"{where}: it was dispatched {account.idle} times for nothing")

    def _is_late(self, pair: Pair, seq: int, change: RunChange) -> bool:
        """Whether an entry got into the store after a dispatch was decided, and after the broker had lost its event.

        It was lost with the disk of the broker then. A write of somebody who is gone brought it, unknown to all others.
        """
        known = 0 if change.before is None else change.before.last_seq
        return seq > known and self.was_lost(pair, seq)

    def _check_burial(self, account: Account, after: RunState, where: str) -> None:
        """See that a run is buried only after so many workers were lost, one after the other, with nothing learnt."""
        self.buried[after.run_id] = self._time()
        barren = 0 if account.has_learnt else account.barren + 1
        if barren <= after.recoveries_max:
            self._complain(f"{where}: it was buried after {barren} losses; {after.recoveries_max} are allowed")


def _was_kept(_pair: Pair, _seq: int) -> bool:
    return False


def _is_new(before: RunState, after: RunState) -> bool:
    """Whether the earlier run of this id had expired."""
    return after.revision == 1 and before.status.is_final and before.expires_at is not None


def _written(run: RunState | None) -> object:
    """Everything of a run that is written: how far its journal goes is not."""
    return None if run is None else [getattr(run, name) for name in RunState.__slots__ if name != "last_seq"]


def _reasons(run: RunState) -> object:
    """What may be a reason to dispatch a run again."""
    facts = (run.inbox, run.seen, run.waits, run.cancel_requested, run.recoveries)
    return (*facts, run.forgiven, run.pending, run.learnt_seq)


def _invented(account: Account, after: RunState) -> Iterator[str]:
    """Say what a run takes for granted that was never recorded, as far as it counts."""
    if after.base_seq > account.end:
        yield f"it begins at #{after.base_seq}, and was recorded up to #{account.end}"


def _wrong(before: RunState, after: RunState) -> Iterator[str]:
    """Say what may not follow from what."""
    if after.revision != before.revision + 1:
        yield f"a revision was skipped after {before.revision}"
    if after.pair.epoch < before.pair.epoch or after.base_seq < before.base_seq:
        yield "the epoch or the base went back"
    if after.pair.epoch == before.pair.epoch and after.pair != before.pair:
        yield "one epoch, two dispatches"
    if before.status is RunStatus.COMPLETED and after.status is not RunStatus.COMPLETED:
        yield f"it was completed, and is {after.status}"
    if before.status.is_final and not after.status.is_final and len(after.seen) == len(before.seen):
        yield f"it was {before.status}, and is {after.status} though nobody asked for that"
    twice = [name for name, times in Counter(after.seen).items() if times > 1]
    if twice:
        yield f"what a client said once was counted twice: {twice}"
    if after.status.is_final and (after.lease_until is not None or after.wake_at is not None):
        yield f"it is {after.status}, and there is a lease or a timer"


def brief(run: RunState) -> str:
    """Describe a run, for the trace."""
    facts: list[object] = [run.status, f"e{run.pair.epoch}", f"base={run.base_seq}", f"seq={run.last_seq}"]
    if run.holder:
        facts.append("held")
    if run.recoveries:
        facts.append(f"recoveries={run.recoveries}")
    return f"run {run.run_id[-6:]} {' '.join(map(str, facts))}"
