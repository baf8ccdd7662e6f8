"""Folding: what a batch of events makes of one run."""

from typing import Any

import pytest

from aiki.engine.commands import ExecuteRun, ExecuteTask
from aiki.engine.decide import Decision, Moment, decide
from aiki.engine.events import CancelRequested, Event, PauseRequested, TaskFinished, TaskScheduled
from aiki.engine.journal import EntryKind
from aiki.engine.payload import NULL
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.orchestrator import fold as folding
from aiki.orchestrator.fold import Folded, fold
from aiki.testing.builders import T0, a_run, appended, completed, entry, orphaned, requested, running, started


def folded(before: RunState | None, *events: Event) -> Folded:
    return fold(events[0].run_id, before, events, now=T0, retention=60.0)


def test_a_new_run_is_a_change_from_nothing_with_the_first_revision() -> None:
    event = requested()

    result = folded(None, event)

    assert result.change is not None
    assert result.change.before is None
    assert result.change.after.revision == 1
    assert result.run == result.change.after


def test_all_events_of_a_batch_are_one_revision() -> None:
    before = a_run()
    start = started(before)

    result = folded(before, start, orphaned(before))

    assert result.change is not None
    assert result.change.after.revision == before.revision + 1
    assert result.change.after.pair.epoch == before.pair.epoch + 1


def test_what_only_adds_to_the_journal_does_not_write_the_run() -> None:
    run = running()
    before = folded(run, appended(run)).run
    assert before is not None
    result = folded(before, appended(before))

    assert result.change is not None
    assert len(result.change.journal) == 1
    assert not result.change.writes_run


def test_an_event_that_was_applied_already_stores_nothing() -> None:
    before = running()

    result = folded(before, started(before))

    assert result.change is None
    assert result.run is before


def test_rule_1_a_dispatch_that_a_later_event_of_its_batch_replaces_is_not_sent() -> None:
    request = requested()
    first = folded(None, request).run
    assert first is not None

    result = folded(first, orphaned(first), orphaned(first))
    pairs = [command.pair for command in result.commands if isinstance(command, ExecuteRun)]

    assert result.run is not None
    assert pairs == [result.run.pair]


def test_a_dispatch_of_a_run_that_ends_in_the_same_batch_is_not_sent() -> None:
    request = requested()
    cancel = CancelRequested(id="cancel", run_id=request.run_id, at=T0)

    result = folded(None, request, cancel)

    assert result.run is not None
    assert result.run.status is RunStatus.CANCELLED
    assert not any(isinstance(command, ExecuteRun) for command in result.commands)


def test_a_dispatch_of_a_run_that_is_paused_in_the_same_batch_is_not_sent() -> None:
    request = requested()
    pause = PauseRequested(id="pause", run_id=request.run_id, at=T0)

    result = folded(None, request, pause)

    assert result.run is not None
    assert result.run.status is RunStatus.PAUSED
    assert not any(isinstance(command, ExecuteRun) for command in result.commands)


def a_task_elsewhere(run: RunState) -> TaskScheduled:
    return TaskScheduled(
        id="scheduled",
        run_id=run.run_id,
        at=T0,
        incarnation=run.incarnation,
        pair=run.pair,
        worker=run.holder or "",
        entry=entry(run, kind=EntryKind.TASK_SCHEDULED, operation="task:render:0#1", source="task-1", payload=None),
        task_id="task-1",
        queue="gpu",
        task="render",
        operation="task:render:0#1",
        attempt=1,
        input=NULL,
        idempotency_key="key",
    )


def tasks_sent(result: Folded) -> list[str]:
    return [command.task_id for command in result.commands if isinstance(command, ExecuteTask)]


def test_a_task_goes_to_its_queue_though_its_run_is_dispatched_again_in_the_same_batch() -> None:
    run = running()

    result = folded(run, a_task_elsewhere(run), orphaned(run))

    assert tasks_sent(result) == ["task-1"]


def test_a_task_that_ends_in_the_same_batch_is_not_sent_once_more() -> None:
    run = running()
    scheduled = a_task_elsewhere(run)
    before = folded(run, scheduled).run
    assert before is not None
    finished = TaskFinished(
        id="finished", run_id=run.run_id, at=T0, incarnation=run.incarnation, task_id="task-1", worker="gpu-1"
    )
    learnt = appended(before, entry(before, operation="task:render:0#1", source="task-1"))

    assert tasks_sent(folded(before, scheduled)) == ["task-1"]
    assert tasks_sent(folded(before, scheduled, finished)) == []
    assert tasks_sent(folded(before, scheduled, finished, learnt)) == []


def test_rule_5_a_refused_event_makes_the_result_doubtful() -> None:
    run = running()

    assert folded(run, completed(run, worker="stranger")).is_doubtful
    assert not folded(run, completed(run)).is_doubtful


def test_an_event_that_cannot_be_decided_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = running()
    poison, good = started(run), completed(run)

    def decide_or_fail(run: RunState | None, event: Event, moment: Moment) -> Decision:
        if event is poison:
            raise ZeroDivisionError("a bug")
        return decide(run, event, moment)

    monkeypatch.setattr(folding, "decide", decide_or_fail)
    result = folded(run, poison, good)

    assert [event for event, _ in result.failed] == [poison]
    assert result.is_doubtful
    assert result.run is not None
    assert result.run.status is RunStatus.COMPLETED


def test_no_two_decisions_get_the_same_token(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[str] = []

    def note(run: RunState | None, event: Event, moment: Moment) -> Any:
        tokens.append(moment.token)
        return Decision(run)

    monkeypatch.setattr(folding, "decide", note)
    run = running()
    fold(run.run_id, run, [started(run)] * 1000, now=T0, retention=60.0)

    assert len(set(tokens)) == 1000
    assert min(map(len, tokens)) >= 16
