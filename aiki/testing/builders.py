"""Builders: runs and events for tests, complete from few words.

``a_run()`` is a queued run; the others bring a run one step further through the
engine itself, so that what a test starts from is a state that can be reached.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from aiki.engine.decide import Decision, Moment, decide
from aiki.engine.events import (
    Event,
    JournalAppended,
    RunCompleted,
    RunFailed,
    RunOrphaned,
    RunRequested,
    RunStarted,
    RunSuspended,
)
from aiki.engine.journal import EntryKind, Failure, JournalEntry, Wait, WaitKind
from aiki.engine.payload import digest, dump_payload
from aiki.engine.state import RunState

__all__ = [
    "T0",
    "a_moment",
    "a_run",
    "after",
    "appended",
    "completed",
    "entry",
    "failed",
    "orphaned",
    "requested",
    "running",
    "sleeping",
    "started",
    "suspended",
]

T0 = datetime(2026, 1, 1, tzinfo=UTC)
"""When every test begins."""

_numbers = count(1)


def _next(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


def a_moment(seconds: float = 0.0, *, token: str | None = None) -> Moment:
    """Make the moment *seconds* after ``T0``, with a token of its own."""
    return Moment(T0 + timedelta(seconds=seconds), token or _next("token"))


def requested(run_id: str = "", *, seconds: float = 0.0, **changes: Any) -> RunRequested:
    """Make the request of a run of the workflow ``greet``."""
    payload = dump_payload({"name": "Ada"})
    event = RunRequested(
        id=_next("request"),
        run_id=run_id or _next("run"),
        at=T0 + timedelta(seconds=seconds),
        incarnation=_next("incarnation"),
        workflow="greet",
        version="1.0.0",
        queue="greet@1.0.0",
        input=payload,
        input_hash=digest(payload),
    )
    return replace(event, **changes)


def after(run: RunState | None, *events: Event, seconds: float = 0.0) -> RunState:
    """Bring *run* through *events*; fails where the engine refuses one."""
    for event in events:
        decision: Decision = decide(run, event, a_moment(seconds))
        assert not decision.refused, f"the engine refused {event}"
        run = decision.run
    assert run is not None
    return run


def a_run(**changes: Any) -> RunState:
    """Make a queued run, dispatched once; *changes* are of its request."""
    return after(None, requested(**changes))


def running(**changes: Any) -> RunState:
    """Make a run that the worker ``w1`` holds."""
    run = a_run(**changes)
    return after(run, started(run))


def sleeping(seconds: float = 60.0, **changes: Any) -> RunState:
    """Make a run that sleeps until *seconds* after ``T0``."""
    run = running(**changes)
    return after(run, suspended(run, wake_at=T0 + timedelta(seconds=seconds)))


def _said(run: RunState, prefix: str, worker: str | None) -> dict[str, Any]:
    return {
        "id": _next(prefix),
        "run_id": run.run_id,
        "at": T0,
        "incarnation": run.incarnation,
        "pair": run.pair,
        "worker": worker or run.holder or "w1",
    }


def started(run: RunState, *, worker: str = "w1") -> RunStarted:
    """Let *worker* say that it starts the current dispatch of *run*."""
    return RunStarted(**_said(run, "started", worker))


def entry(run: RunState, **changes: Any) -> JournalEntry:
    """Make the next journal entry of *run*: a completed task."""
    seq = run.last_seq + 1
    plain = JournalEntry(
        seq=seq,
        epoch=run.pair.epoch,
        at=T0,
        kind=EntryKind.TASK_COMPLETED,
        operation=f"task:step:{seq}#1",
        attempt=1,
        payload=dump_payload(seq),
    )
    return replace(plain, **changes)


def appended(run: RunState, *entries: JournalEntry, worker: str | None = None) -> JournalAppended:
    """Let the holder say what it learnt: *entries*, or the next one."""
    return JournalAppended(**_said(run, "appended", worker), entries=entries or (entry(run),))


def suspended(
    run: RunState,
    *,
    wake_at: datetime | None = None,
    waits: tuple[Wait, ...] | None = None,
    ready: bool = False,
    worker: str | None = None,
) -> RunSuspended:
    """Let the holder give the run back: asleep until *wake_at*, or with the *waits* as given."""
    if waits is None:
        waits = () if ready else (Wait(kind=WaitKind.TIMER, operation="timer:greet#1", due_at=wake_at),)
    return RunSuspended(
        **_said(run, "suspended", worker), last_seq=run.last_seq, waits=waits, wake_at=wake_at, ready=ready
    )


def completed(run: RunState, result: object = "done", *, worker: str | None = None) -> RunCompleted:
    """Let the holder say that the workflow returned."""
    return RunCompleted(**_said(run, "completed", worker), last_seq=run.last_seq, result=dump_payload(result))


def failed(
    run: RunState, *, cancelled: bool = False, operations: tuple[str, ...] = (), worker: str | None = None
) -> RunFailed:
    """Let the holder say that the workflow raised."""
    return RunFailed(
        **_said(run, "failed", worker),
        last_seq=run.last_seq,
        failure=Failure(type="ValueError", message="no"),
        cancelled=cancelled,
        operations=operations,
    )


def orphaned(run: RunState, *, worker: str = "w2", handed_back: bool = False) -> RunOrphaned:
    """Let *worker* say that the dispatch came to it a second time."""
    return RunOrphaned(**_said(run, "orphaned", worker), handed_back=handed_back)
