"""Any sequence of commits, compared with the simplest store there could be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiki.engine.journal import JournalEntry
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange, Store
from aiki.testing.contracts.store_parts.values import a_run, a_run_id, an_entry, at
from aiki.testing.strategies import journal_entries, run_states

__all__ = ["SequencesContract"]

# A store is opened once and used by all examples; each has runs of its own in it. Every adapter runs the same test.
ON_ONE_STORE = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ],
)

RUNS = 2
MOMENT = at(100)

Place = tuple[str, str, int]


@dataclass(frozen=True)
class Step:
    """One commit: what is done to which run, by somebody who may believe what was true one step ago."""

    deed: Literal["begin", "append", "change", "dispatch", "finish", "expire"]
    run: int
    believes_the_past: bool
    size: int


steps = st.lists(
    st.builds(
        Step,
        deed=st.sampled_from(["begin", "append", "append", "change", "dispatch", "finish", "expire"]),
        run=st.integers(0, RUNS - 1),
        believes_the_past=st.booleans(),
        size=st.integers(1, 3),
    ),
    min_size=5,
    max_size=25,
)


class Model:
    """The simplest store: two dicts, and the words of the port."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}
        self.entries: dict[Place, JournalEntry] = {}

    def commit(self, change: RunChange) -> bool:
        """Tell whether *change* is kept, and keep it."""
        before, after = change.before, change.after
        base = 0 if before is None else before.base_seq
        for entry in change.journal:
            there = self.entries.get((after.run_id, after.incarnation, entry.seq))
            if there is not None and there != entry and (there.epoch >= entry.epoch or entry.seq <= base):
                return False
        if change.writes_run:
            stored = self.runs.get(after.run_id)
            expected = None if before is None else (before.incarnation, before.revision)
            found = None if stored is None else (stored.incarnation, stored.revision)
            if found != expected:
                return stored is not None and replace(stored, last_seq=after.last_seq) == after
            self.runs[after.run_id] = after
        for entry in change.journal:
            self.entries[after.run_id, after.incarnation, entry.seq] = entry
        return True

    def journal(self, run: RunState) -> list[JournalEntry]:
        """Tell what counts of a run's journal."""
        return [
            entry
            for (run_id, incarnation, seq), entry in sorted(self.entries.items(), key=itemgetter(0))
            if (run_id, incarnation) == (run.run_id, run.incarnation)
            and (seq <= run.base_seq or entry.epoch == run.pair.epoch)
        ]

    def load(self, run_id: str) -> RunState | None:
        """Read a run."""
        run = self.runs.get(run_id)
        if run is None:
            return None
        return replace(run, last_seq=max((entry.seq for entry in self.journal(run)), default=0))

    def expire(self) -> int:
        """Remove what is over."""
        gone = [run for run in self.runs.values() if run.expires_at is not None and run.expires_at < MOMENT]
        for run in gone:
            del self.runs[run.run_id]
            for place in [place for place in self.entries if place[:2] == (run.run_id, run.incarnation)]:
                del self.entries[place]
        return len(gone)


def change_of(step: Step, run_id: str, believed: RunState | None, incarnation: str) -> RunChange | None:
    """Make the change that *step* means to whoever believes *believed*; ``None`` where it means nothing."""
    if step.deed == "begin" or believed is None:
        return RunChange.between(None, a_run(run_id, incarnation=incarnation)) if step.deed == "begin" else None
    epoch = believed.pair.epoch
    match step.deed:
        case "append":
            # One holder an epoch, which says the same of one place whenever it says something of it.
            journal = tuple(an_entry(believed.last_seq + 1 + number, epoch=epoch) for number in range(step.size))
            return RunChange.between(believed, replace(believed, last_seq=journal[-1].seq), journal)
        case "change":
            return RunChange.between(believed, replace(believed, holder=f"worker-{step.size}"))
        case "dispatch":
            pair = Pair(epoch + 1, f"dispatch-{epoch + 1}")
            return RunChange.between(believed, replace(believed, pair=pair, base_seq=believed.last_seq))
        case _:
            return RunChange.between(believed, replace(believed, status=RunStatus.COMPLETED, expires_at=at(step.size)))


class SequencesContract:
    """Properties: whatever is committed, and in whatever order."""

    @ON_ONE_STORE
    @given(sequence=steps)
    async def test_any_sequence_of_commits_leaves_what_the_simplest_store_has(
        self, store: Store, sequence: Sequence[Step]
    ) -> None:
        model = Model()
        await store.expire(now=MOMENT, limit=1000)  # What the example before has left.
        run_ids = [a_run_id() for _ in range(RUNS)]
        past: dict[str, RunState | None] = dict.fromkeys(run_ids)
        present: dict[str, RunState | None] = dict.fromkeys(run_ids)

        for number, step in enumerate(sequence):
            run_id = run_ids[step.run]
            if step.deed == "expire":
                assert await store.expire(now=MOMENT, limit=1000) == model.expire()
            else:
                believed = past[run_id] if step.believes_the_past else present[run_id]
                change = change_of(step, run_id, believed, f"incarnation-{number}")
                if change is not None:
                    assert (not await store.commit([change])) == model.commit(change), step

            there = await store.load(run_ids)
            for name in run_ids:
                assert there.get(name) == model.load(name), step
                past[name], present[name] = present[name], there.get(name)
            journals = await store.journals(list(there.values()))
            assert {name: list(journal) for name, journal in journals.items()} == {
                name: model.journal(run) for name, run in there.items()
            }

    @ON_ONE_STORE
    @given(run=run_states(), entries=st.lists(journal_entries(), max_size=5))
    async def test_any_run_and_any_entries_are_read_as_they_were_written(
        self, store: Store, run: RunState, entries: list[JournalEntry]
    ) -> None:
        run = replace(run, run_id=a_run_id(), base_seq=len(entries), last_seq=0, expiring=False)
        entries = [replace(entry, seq=number) for number, entry in enumerate(entries, 1)]

        change = RunChange.between(None, run, tuple(entries))
        assert not await store.commit([change])

        assert await store.load([run.run_id]) == {run.run_id: replace(change.after, last_seq=len(entries))}
        assert await store.journal(change.after) == entries
        assert not await store.commit([change])
