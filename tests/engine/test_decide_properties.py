"""What holds in every state that a run can reach, whatever is said to it, in whatever order, however often."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from aiki.engine.commands import ExecuteRun
from aiki.engine.decide import decide
from aiki.engine.events import (
    CancelRequested,
    ChildFinished,
    DispatchDoubted,
    Event,
    LeaseRenewed,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunRequested,
    SignalSent,
    TaskFinished,
    TaskScheduled,
    TimerFired,
    WakeRequested,
    WorkerEvent,
)
from aiki.engine.journal import EntryKind, Wait, WaitKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import Pair, RunState
from aiki.engine.status import FINAL, TRANSITIONS, RunStatus
from aiki.testing.builders import (
    T0,
    a_moment,
    appended,
    completed,
    entry,
    failed,
    orphaned,
    requested,
    started,
    suspended,
)
from aiki.testing.strategies import events as any_events

SOON, LATER = T0 + timedelta(seconds=1), T0 + timedelta(hours=1)
RETRY = Wait(kind=WaitKind.RETRY, operation="task:x:0#1", due_at=SOON, delay_ms=1000)
SIGNAL = Wait(kind=WaitKind.SIGNAL, operation="signal:go:0#1", name="go")
TASK = Wait(kind=WaitKind.TASK, operation="task:gpu:0#1", name="task-1")
NULL = dump_payload(None)


E = TypeVar("E")


def _from_outside(run: RunState, kind: Callable[..., E], number: int, **more: Any) -> E:
    return kind(id=f"{kind.__qualname__}-{number}", run_id=run.run_id, at=T0, **more)


def _timer(run: RunState, number: int) -> TimerFired:
    due_at = run.due_at or LATER
    return _from_outside(run, TimerFired, number, incarnation=run.incarnation, pair=run.pair, due_at=due_at)


def _lease(run: RunState, number: int) -> LeaseRenewed:
    said = {"incarnation": run.incarnation, "pair": run.pair, "worker": run.holder or "w1"}
    return _from_outside(run, LeaseRenewed, number, until=LATER, **said)


def _scheduled(run: RunState, number: int) -> TaskScheduled:
    return TaskScheduled(
        id=f"scheduled-{number}",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=run.pair,
        worker=run.holder or "w1",
        entry=entry(run, kind=EntryKind.TASK_SCHEDULED, source="task-1", payload=None),
        task_id="task-1",
        queue="gpu",
        task="gpu",
        operation="task:gpu:0#1",
        attempt=1,
        input=NULL,
        idempotency_key="key",
    )


Move = Callable[[RunState, int], Event]

MOVES: list[Move] = [
    lambda run, n: started(run),
    lambda run, n: started(run, worker="w2"),
    lambda run, n: appended(run),
    lambda run, n: appended(run, entry(run, seq=run.last_seq + 2)),
    lambda run, n: appended(run, entry(run, kind=EntryKind.SIGNAL_RECEIVED, source=f"SignalSent-{n}")),
    lambda run, n: suspended(run, wake_at=LATER),
    lambda run, n: suspended(run, ready=True),
    lambda run, n: suspended(run, wake_at=SOON, waits=(RETRY,)),
    lambda run, n: suspended(run, waits=(SIGNAL,)),
    lambda run, n: suspended(run, waits=(TASK,)),
    lambda run, n: completed(run),
    lambda run, n: failed(run, operations=("task:x:0#1",)),
    lambda run, n: failed(run, cancelled=True),
    lambda run, n: orphaned(run),
    lambda run, n: orphaned(run, handed_back=True),
    _lease,
    _scheduled,
    _timer,
    lambda run, n: _from_outside(run, DispatchDoubted, n, incarnation=run.incarnation, pair=run.pair),
    lambda run, n: _from_outside(run, SignalSent, n, name="go", payload=NULL),
    lambda run, n: _from_outside(run, ChildFinished, n, incarnation=run.incarnation, child_id="child-1"),
    lambda run, n: _from_outside(run, TaskFinished, n, incarnation=run.incarnation, task_id="task-1", worker="gpu-1"),
    lambda run, n: _from_outside(run, CancelRequested, n),
    lambda run, n: _from_outside(run, PauseRequested, n),
    lambda run, n: _from_outside(run, ResumeRequested, n),
    lambda run, n: _from_outside(run, WakeRequested, n),
    lambda run, n: _from_outside(run, RetryRequested, n),
    lambda run, n: requested(run.run_id, key="k", client="c", answer=True),
]

walks = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 3)), max_size=25)
requests = st.builds(
    requested,
    start_at=st.sampled_from([None, LATER]),
    timeout_at=st.sampled_from([None, LATER]),
    recoveries_max=st.integers(0, 2),
)


def walk(request: RunRequested, moves: list[tuple[Move, int]]) -> tuple[RunState, list[Event]]:
    """Go through *moves* from the start, and tell what was said on the way."""
    run = decide(None, request, a_moment()).run
    assert run is not None
    said: list[Event] = [request]
    for move, number in moves:
        event = move(run, number)
        said.append(event)
        run = decide(run, event, a_moment()).run
        assert run is not None
    return run, said


@given(request=requests, moves=walks, move=st.sampled_from(MOVES), number=st.integers(0, 3))
def test_an_event_delivered_twice_counts_once(
    request: RunRequested, moves: list[tuple[Move, int]], move: Move, number: int
) -> None:
    run, _ = walk(request, moves)
    event = move(run, number)

    once = decide(run, event, a_moment())
    twice = decide(once.run, event, a_moment())

    assert twice.run == once.run
    assert twice.journal == ()


@given(request=requests, moves=walks)
def test_an_event_delivered_twice_dispatches_at_most_once(request: RunRequested, moves: list[tuple[Move, int]]) -> None:
    run, said = walk(request, moves)

    again = decide(run, said[-1], a_moment())

    assert not [command for command in again.commands if isinstance(command, ExecuteRun)]


@given(request=requests, moves=walks, data=st.data())
def test_what_a_worker_says_for_an_earlier_dispatch_changes_nothing(
    request: RunRequested, moves: list[tuple[Move, int]], data: st.DataObject
) -> None:
    run, said = walk(request, moves)
    stale = [event for event in said if isinstance(event, get_args(WorkerEvent)) and event.pair != run.pair]
    if not stale:
        return
    event = data.draw(st.sampled_from(stale))

    decision = decide(run, event, a_moment())

    assert decision.run == run
    assert decision.journal == ()


@given(request=requests, moves=walks, move=st.sampled_from(MOVES), epoch=st.integers(0, 99))
def test_what_carries_a_guessed_pair_changes_nothing(
    request: RunRequested, moves: list[tuple[Move, int]], move: Move, epoch: int
) -> None:
    run, _ = walk(request, moves)
    event = move(run, 0)
    if not isinstance(event, get_args(WorkerEvent)):
        return
    guessed = replace(event, pair=Pair(epoch, "guessed"))

    assert decide(run, guessed, a_moment()).run == run


@given(request=requests, moves=walks)
def test_a_run_moves_only_as_the_table_says(request: RunRequested, moves: list[tuple[Move, int]]) -> None:
    run = decide(None, request, a_moment()).run
    assert run is not None
    assert run.status in TRANSITIONS[None]["RunRequested"]
    for move, number in moves:
        event = move(run, number)
        after = decide(run, event, a_moment()).run
        assert after is not None
        if after.status is not run.status:
            allowed = TRANSITIONS[run.status].get(event.type, frozenset())
            assert after.status in allowed, f"{run.status} -{event.type}-> {after.status}"
        run = after


@given(request=requests, moves=walks)
def test_epochs_never_go_back_and_pairs_change_only_with_them(
    request: RunRequested, moves: list[tuple[Move, int]]
) -> None:
    run = decide(None, request, a_moment()).run
    assert run is not None
    for move, number in moves:
        after = decide(run, move(run, number), a_moment()).run
        assert after is not None
        assert after.pair == run.pair or after.pair.epoch == run.pair.epoch + 1
        run = after


@given(request=requests, moves=walks)
def test_a_journal_has_no_gaps_within_a_dispatch(request: RunRequested, moves: list[tuple[Move, int]]) -> None:
    run = decide(None, request, a_moment()).run
    assert run is not None
    for move, number in moves:
        decision = decide(run, move(run, number), a_moment())
        assert decision.run is not None
        expected = range(run.last_seq + 1, run.last_seq + 1 + len(decision.journal))
        assert [kept.seq for kept in decision.journal] == [*expected]
        assert decision.run.last_seq == run.last_seq + len(decision.journal)
        assert decision.run.base_seq <= decision.run.last_seq
        run = decision.run


def _towards_the_end(run: RunState) -> Event:
    """Say what a healthy world would say next to a run."""
    if run.status in (RunStatus.QUEUED, RunStatus.RUNNING):
        return completed(run) if run.holder else started(run)
    if run.status is RunStatus.PAUSED:
        return _from_outside(run, ResumeRequested, 99)
    return _from_outside(run, WakeRequested, 99)


@given(request=requests, moves=walks)
def test_every_reachable_state_can_still_reach_a_final_one(
    request: RunRequested, moves: list[tuple[Move, int]]
) -> None:
    run, _ = walk(request, moves)
    for _ in range(4):
        if run.status in FINAL:
            return
        after = decide(run, _towards_the_end(run), a_moment()).run
        assert after is not None
        run = after
    assert run.status in FINAL


@given(request=requests, moves=walks)
def test_what_moves_by_itself_is_watched(request: RunRequested, moves: list[tuple[Move, int]]) -> None:
    run, _ = walk(request, moves)

    if run.status in (RunStatus.SLEEPING, RunStatus.AWAITING_RETRY, RunStatus.SCHEDULED):
        assert run.due_at is not None
    if run.status in FINAL:
        assert run.due_at is None
        assert run.expires_at is not None


@settings(max_examples=300)
@given(request=requests, moves=walks, event=any_events())
def test_no_event_in_any_state_raises(request: RunRequested, moves: list[tuple[Move, int]], event: Event) -> None:
    run, _ = walk(request, moves)

    decide(run, replace(event, run_id=run.run_id), a_moment())
    decide(None, event, a_moment())


def test_every_status_is_reachable_by_the_table_and_leads_to_a_final_one() -> None:
    reached = {status for moves in TRANSITIONS.values() for targets in moves.values() for status in targets}
    assert reached == set(RunStatus)

    def reaches_an_end(status: RunStatus, seen: frozenset[RunStatus] = frozenset()) -> bool:
        if status in FINAL:
            return True
        following = {target for targets in TRANSITIONS[status].values() for target in targets} - seen
        return any(reaches_an_end(target, seen | {status}) for target in following)

    assert all(reaches_an_end(status) for status in RunStatus)
