"""The timeline of a run: what the journal says, as rows of segments, and those on an axis."""

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aiki.cli.drawing import draw_run, draw_runs
from aiki.cli.timeline import Axis, Outcome, Row, Segment, Timeline, build_timeline
from aiki.engine.journal import EntryKind, Failure, JournalEntry, Wait, WaitKind
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.testing.builders import T0, a_run

EMAIL = "task:send-email:aaaa#1"
PROFILE = "task:create-profile:bbbb#1"
REFUSED = Failure(type="ConnectionError", message="refused by peer")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def entry(kind: EntryKind, ended: float, operation: str | None = EMAIL, **fields: Any) -> JournalEntry:
    return JournalEntry(seq=1, epoch=1, at=at(ended), kind=kind, operation=operation, **fields)


def attempt(kind: EntryKind, began: float, ended: float, operation: str = EMAIL, number: int = 1, **fields: Any) -> Any:
    return entry(kind, ended, operation, started_at=at(began), attempt=number, **fields)


def rows_of(run: RunState, *journal: JournalEntry, now: float = 100.0) -> Sequence[Row]:
    return build_timeline(run, journal, now=at(now)).rows


def drawn(run: RunState, *journal: JournalEntry, now: float = 100.0, columns: int = 100) -> str:
    console = Console(file=io.StringIO(), width=columns)
    console.print(draw_run(run, build_timeline(run, journal, now=at(now)), now=at(now), width=columns))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_task_that_succeeds_is_one_attempt() -> None:
    (row,) = rows_of(a_run(), attempt(EntryKind.TASK_COMPLETED, 1, 3, worker="w1"))

    assert row.name == "send-email"
    assert row.outcome is Outcome.DONE
    assert row.attempts == 1
    assert row.span == timedelta(seconds=2)
    assert row.segments == (Segment(at(1), at(3), Outcome.DONE, attempt=1, worker="w1"),)


def test_attempts_that_fail_are_shown_with_the_waits_between_them() -> None:
    (row,) = rows_of(
        a_run(),
        attempt(EntryKind.ATTEMPT_FAILED, 0, 1, failure=REFUSED, due_at=at(3)),
        attempt(EntryKind.ATTEMPT_FAILED, 3, 4, number=2, failure=REFUSED, due_at=at(8)),
        attempt(EntryKind.TASK_COMPLETED, 8, 9, number=3),
    )

    assert [segment.outcome for segment in row.segments] == [
        Outcome.FAILED,
        Outcome.WAITING,
        Outcome.FAILED,
        Outcome.WAITING,
        Outcome.DONE,
    ]
    assert row.attempts == 3
    assert row.outcome is Outcome.DONE
    assert row.span == timedelta(seconds=9)


def test_a_retry_that_is_pending_waits_until_now() -> None:
    wait = Wait(kind=WaitKind.RETRY, operation=EMAIL, due_at=at(50))
    run = replace(a_run(), status=RunStatus.AWAITING_RETRY, waits=(wait,))

    (row,) = rows_of(run, attempt(EntryKind.ATTEMPT_FAILED, 0, 1, failure=REFUSED, due_at=at(50)), now=20)

    assert row.outcome is Outcome.WAITING
    assert row.segments[-1] == Segment(at(1), at(20), Outcome.WAITING)


def test_what_a_retry_of_the_run_forgave_is_void() -> None:
    (row,) = rows_of(
        a_run(),
        attempt(EntryKind.TASK_FAILED, 0, 1, failure=REFUSED),
        entry(EntryKind.RETRIED, 5),
        attempt(EntryKind.TASK_COMPLETED, 5, 6),
    )

    assert [segment.outcome for segment in row.segments] == [Outcome.VOID, Outcome.WAITING, Outcome.DONE]
    assert row.outcome is Outcome.DONE
    assert row.note == "retried"


def test_a_task_on_another_worker_waits_from_when_it_was_sent() -> None:
    (row,) = rows_of(a_run(), entry(EntryKind.TASK_SCHEDULED, 1, source="t"), attempt(EntryKind.TASK_COMPLETED, 4, 6))

    assert [(s.start, s.end, s.outcome) for s in row.segments] == [
        (at(1), at(4), Outcome.WAITING),
        (at(4), at(6), Outcome.DONE),
    ]


def test_timers_signals_and_children_are_rows_too() -> None:
    rows = rows_of(
        a_run(),
        attempt(EntryKind.TASK_COMPLETED, 0, 1),
        entry(EntryKind.TIMER_FIRED, 11, "timer:shop.remind#1"),
        entry(EntryKind.SIGNAL_RECEIVED, 15, "signal:approved:ffff#1", name="approved"),
        entry(EntryKind.CHILD_STARTED, 15, "child:invoice:cccc#1", source="child"),
        entry(EntryKind.CHILD_FAILED, 18, "child:invoice:cccc#1", failure=REFUSED),
    )

    assert [(row.name, row.outcome, row.span.total_seconds()) for row in rows] == [
        ("send-email", Outcome.DONE, 1),
        ("sleep in remind", Outcome.DONE, 10),
        ("signal approved", Outcome.DONE, 4),
        ("child invoice", Outcome.FAILED, 3),
    ]


def test_rows_come_in_the_order_in_which_things_began() -> None:
    rows = rows_of(
        a_run(),
        attempt(EntryKind.TASK_COMPLETED, 2, 3, PROFILE),
        attempt(EntryKind.TASK_COMPLETED, 1, 4, EMAIL),
    )

    assert [row.name for row in rows] == ["send-email", "create-profile"]


def test_a_long_sleep_does_not_hide_what_happened_around_it() -> None:
    month = 30 * 86400.0
    timeline = build_timeline(
        replace(a_run(), status=RunStatus.COMPLETED, finished_at=at(month + 2)),
        [
            attempt(EntryKind.TASK_COMPLETED, 0, 1),
            entry(EntryKind.TIMER_FIRED, month, "timer:shop.remind#1"),
            attempt(EntryKind.TASK_COMPLETED, month, month + 1, PROFILE),
        ],
        now=at(month + 2),
    )

    axis = Axis(timeline, width=60)

    assert len(axis.cells(at(0), at(1))) >= 10
    assert len(axis.cells(at(month), at(month + 1))) >= 10
    assert axis.breaks


def test_a_short_wait_is_to_scale() -> None:
    timeline = build_timeline(
        a_run(),
        [attempt(EntryKind.TASK_COMPLETED, 0, 5), attempt(EntryKind.TASK_COMPLETED, 6, 10, PROFILE)],
        now=at(10),
    )

    axis = Axis(timeline, width=100)

    assert axis.cells(at(0), at(5)) == range(50)
    assert axis.cells(at(6), at(10)) == range(60, 100)
    assert not axis.breaks


SPANS = st.tuples(st.floats(0, 1e7), st.floats(0, 1e7)).map(sorted)


@given(spans=st.lists(SPANS, max_size=8), columns=st.integers(1, 200), waits=st.booleans())
def test_every_stretch_has_a_cell_and_none_leaves_the_axis(spans: list[list[float]], columns: int, waits: bool) -> None:
    outcome = Outcome.WAITING if waits else Outcome.DONE
    segments = [Segment(at(start), at(end), outcome) for start, end in spans]
    rows = tuple(Row("x#1", "x", (segment,), outcome) for segment in segments)
    timeline = Timeline(at(0), max([at(0), *(s.end for s in segments)]), rows)

    axis = Axis(timeline, width=columns)

    for segment in segments:
        cells = axis.cells(segment.start, segment.end)
        assert len(cells) >= 1
        assert 0 <= cells.start < cells.stop <= columns
    assert all(0 <= cell < columns for cell in axis.breaks)


def test_a_run_is_drawn_with_its_steps_its_errors_and_its_result() -> None:
    run = replace(
        a_run(), status=RunStatus.COMPLETED, finished_at=at(5), result=Payload('{"sent":true}'), tags=("vip",)
    )

    text = drawn(
        run,
        attempt(EntryKind.ATTEMPT_FAILED, 0, 1, failure=REFUSED, due_at=at(3)),
        attempt(EntryKind.TASK_COMPLETED, 3, 5, number=2),
    )

    assert "greet@1.0.0  completed" in text
    assert run.run_id in text
    assert "vip" in text
    assert "█" in text
    assert "✗ send-email, attempt 1, at 1.0s: ConnectionError: refused by peer" in text
    assert '✓ result {"sent":true}' in text


def test_a_failed_run_is_drawn_with_the_causes_of_its_failure() -> None:
    failure = Failure(type="aiki.errors.TaskFailedError", message="send-email failed", cause=REFUSED)

    text = drawn(replace(a_run(), status=RunStatus.FAILED, finished_at=at(5), failure=failure))

    assert "✗ aiki.errors.TaskFailedError: send-email failed" in text
    assert "because of ConnectionError: refused by peer" in text


def test_no_line_of_a_drawing_is_wider_than_the_terminal() -> None:
    wait = Wait(kind=WaitKind.SIGNAL, operation="signal:approved:ffff#1", name="approved")
    run = replace(a_run(), status=RunStatus.AWAITING_SIGNAL, waits=(wait,), input=Payload('"' + "x" * 5000 + '"'))

    text = drawn(
        run,
        attempt(EntryKind.TASK_COMPLETED, 0, 1, f"task:{'long-name' * 10}:aaaa#1"),
        attempt(EntryKind.TASK_FAILED, 3, 5, failure=Failure(type="E", message="why " * 500)),
        columns=80,
    )

    assert max(len(line) for line in text.splitlines()) <= 80


def test_text_of_users_is_never_taken_for_markup() -> None:
    run = replace(a_run(), input=Payload('"[bold]x[/bold]"'), note=Payload('"[/nope]"'))

    text = drawn(run)

    assert "[bold]x[/bold]" in text
    assert "[/nope]" in text


def test_a_list_of_runs_has_a_line_for_each() -> None:
    console = Console(file=io.StringIO(), width=140)
    runs = [a_run(), replace(a_run(), status=RunStatus.FAILED, finished_at=at(3))]

    console.print(draw_runs(runs, now=at(60)))

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "queued  1m 00s ago  1m 00s" in text
    assert "failed  1m 00s ago  3.0s" in text
