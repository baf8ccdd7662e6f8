"""What the contract of ``Store`` keeps: runs and entries from few words, and the steps that every test takes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from aiki.engine.commands import DeadLetter
from aiki.engine.ids import partition_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.payload import Payload
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange, Store

__all__ = [
    "PARTITIONS",
    "T0",
    "a_letter",
    "a_run",
    "a_run_id",
    "an_entry",
    "appended",
    "at",
    "changed",
    "created",
    "dispatched",
    "entries",
    "loaded",
]

PARTITIONS = 8
T0 = datetime(2026, 1, 1, tzinfo=UTC)

_numbers = count(1)


def at(seconds: float) -> datetime:
    """Tell the moment *seconds* after the tests begin."""
    return T0 + timedelta(seconds=seconds)


def a_run_id(partition: int | None = None) -> str:
    """Make an id that no run has yet, of *partition* if one is named."""
    return next(
        name for name in (f"run-{number}" for number in _numbers) if partition in (None, partition_of(name, PARTITIONS))
    )


def a_run(run_id: str | None = None, **changes: Any) -> RunState:
    """Make a run that was dispatched once."""
    run = RunState(
        run_id=run_id or a_run_id(),
        incarnation="first",
        workflow="greet",
        version="1.0.0",
        queue="greet@1.0.0",
        input=Payload('{"name":"Ada"}'),
        input_hash="0123456789abcdef",
        status=RunStatus.QUEUED,
        created_at=T0,
        requested_by="request-1",
        pair=Pair(1, "dispatch-1"),
    )
    return replace(run, **changes)


def an_entry(seq: int, *, epoch: int = 1, payload: str = "null", **changes: Any) -> JournalEntry:
    """Make the entry of a task that completed."""
    entry = JournalEntry(
        seq=seq,
        epoch=epoch,
        at=at(seq),
        kind=EntryKind.TASK_COMPLETED,
        operation=f"task:send-email:abc#{seq}",
        attempt=1,
        payload=Payload(payload),
        started_at=at(seq - 1),
        worker="worker-1",
        where="app.py:42 in greet",
    )
    return replace(entry, **changes)


def entries(first: int, last: int, *, epoch: int = 1, payload: str = "null") -> tuple[JournalEntry, ...]:
    """Make the entries from *first* to *last*."""
    return tuple(an_entry(seq, epoch=epoch, payload=payload) for seq in range(first, last + 1))


def a_letter(name: str, *, seconds: float = 0.0, **changes: Any) -> DeadLetter:
    """Make a dead letter that was parked *seconds* after the tests began."""
    letter = DeadLetter(id=name, reason="broken_json", at=at(seconds), origin="aiki.events.1", body="{broken")
    return replace(letter, **changes)


async def created(store: Store, run: RunState | None = None, *, journal: int = 0, **changes: Any) -> RunState:
    """Commit a new run with a journal of *journal* entries."""
    change = RunChange.between(None, run or a_run(**changes), entries(1, journal))
    assert not await store.commit([change])
    return replace(change.after, last_seq=journal)


async def changed(store: Store, run: RunState, **changes: Any) -> RunState:
    """Commit *changes* of a run."""
    change = RunChange.between(run, replace(run, **changes))
    assert not await store.commit([change])
    return change.after


async def appended(store: Store, run: RunState, *journal: JournalEntry) -> RunState:
    """Commit entries of a run, and nothing else."""
    change = RunChange.between(run, replace(run, last_seq=journal[-1].seq), journal)
    assert not await store.commit([change])
    return change.after


async def dispatched(store: Store, run: RunState) -> RunState:
    """Commit a new dispatch of a run, with all that was learnt so far as its base."""
    epoch = run.pair.epoch + 1
    return await changed(store, run, pair=Pair(epoch, f"dispatch-{epoch}"), base_seq=run.last_seq)


async def loaded(store: Store, run_id: str) -> RunState:
    """Load a run that is there."""
    return (await store.load([run_id]))[run_id]
