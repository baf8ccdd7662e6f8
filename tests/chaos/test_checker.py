"""The checker of chaos runs notices each violation that somebody made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from aiki.engine.commands import DeadLetter
from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind
from aiki.engine.payload import dump_payload
from aiki.engine.state import Parent
from aiki.engine.status import RunStatus
from aiki.testing.builders import T0, after, appended, completed, entry, running
from aiki.testing.chaos.checker import check, executed_again, not_promised
from aiki.testing.chaos.history import Accepted, Attempted, Called, Heard, History, Replayed, Struck, Written
from aiki.testing.chaos.workload import BURST, job_of

RUN = "run"
JOB = BURST + 1
WORKER, OTHER = 11, 12


def a_history() -> History:
    """One run of two tasks, with nothing wrong in it."""
    run = running(run_id=RUN, workflow="chaos-chain", input=dump_payload({"number": JOB, "steps": 2}))
    entries = []
    for _ in range(2):
        entries.append(entry(run))
        run = after(run, appended(run, entries[-1]))
    run = after(run, completed(run, JOB + 2))
    keys = [idempotency_key_of(RUN, run.incarnation, each.operation or "") for each in entries]
    writes = [
        Written(RUN, revision, status, run.pair.epoch, run.pair.dispatch_id, holder, 0)
        for revision, (status, holder) in enumerate([("queued", None), ("running", "w1"), ("completed", "w1")], 1)
    ]
    return History(
        calls=[Called(1.0, JOB, None, "accepted")],
        accepted=[Accepted(1.1, RUN, is_stored=False)],
        heard=[Heard(3.0, RUN, "completed", JOB + 2)],
        replays=[Replayed(1.2, WORKER, RUN, seen=0)],
        attempts=[Attempted(1.3 + n, WORKER, RUN, "add", key, 1) for n, key in enumerate(keys)],
        progress=[(1.4, RUN), (2.4, RUN), (3.0, RUN)],
        faults=[Struck("worker-kill", 2.0, 2.1, "worker-0")],
        writes=writes,
        runs={RUN: run},
        journals={RUN: entries},
    )


def kinds_of(history: History) -> set[str]:
    return {violation.kind for violation in check(history)}


def test_a_history_without_faults_passes() -> None:
    assert check(a_history()) == []


def lose_the_run(history: History) -> None:
    del history.runs[RUN], history.journals[RUN]
    history.heard.clear()


def lose_the_run_after_its_end_was_heard(history: History) -> None:
    del history.runs[RUN], history.journals[RUN]
    history.accepted.clear()


def ask_for_nothing(history: History) -> None:
    history.calls.clear()


def refuse_the_call(history: History) -> None:
    history.calls = [replace(history.calls[0], outcome="refused")]


def start_the_job_twice(history: History) -> None:
    history.runs["other"] = replace(history.runs[RUN], run_id="other")


def leave_it_running(history: History) -> None:
    history.runs[RUN] = replace(history.runs[RUN], status=RunStatus.RUNNING)


def change_the_result(history: History) -> None:
    history.runs[RUN] = replace(history.runs[RUN], result=dump_payload(0))
    history.heard.clear()


def fail_the_run(history: History) -> None:
    history.runs[RUN] = replace(history.runs[RUN], status=RunStatus.FAILED, result=None)
    history.heard.clear()


def make_the_child_wrong(history: History) -> None:
    parent = Parent(run_id="other", incarnation="incarnation", operation="child")
    history.runs["child"] = replace(history.runs[RUN], run_id="child", parent=parent, result=dump_payload(0))


def hear_something_else(history: History) -> None:
    history.heard.append(replace(history.heard[0], status="failed", result=None))


def lose_an_entry(history: History) -> None:
    history.journals[RUN] = history.journals[RUN][1:]


def turn_back_the_clock(history: History) -> None:
    first, second = history.journals[RUN]
    history.journals[RUN] = [replace(first, at=T0.replace(year=2030)), second]


def turn_back_the_epoch(history: History) -> None:
    first, second = history.journals[RUN]
    history.journals[RUN] = [replace(first, epoch=7), second]


def record_a_task_twice(history: History) -> None:
    first, second = history.journals[RUN]
    history.journals[RUN] = [first, replace(second, operation=first.operation)]


def take_in_a_signal_twice(history: History) -> None:
    first, second = (replace(each, kind=EntryKind.SIGNAL_RECEIVED, source="item") for each in history.journals[RUN])
    history.journals[RUN] = [first, second]


def leave_a_journal_behind(history: History) -> None:
    history.journals["other"] = history.journals[RUN]


def count_a_lost_worker_as_an_attempt(history: History) -> None:
    first, second = history.journals[RUN]
    history.journals[RUN] = [replace(first, kind=EntryKind.ATTEMPT_FAILED), second]


def execute_what_is_recorded(history: History) -> None:
    history.replays.append(Replayed(4.0, OTHER, RUN, seen=2))
    history.attempts.append(replace(history.attempts[1], at=4.1, process=OTHER))


def execute_twice_in_one_dispatch(history: History) -> None:
    history.attempts.append(replace(history.attempts[1], at=2.5))


def skip_a_revision(history: History) -> None:
    del history.writes[1]


def go_back_an_epoch(history: History) -> None:
    history.writes[2] = replace(history.writes[2], epoch=0)


def go_back_behind_the_base(history: History) -> None:
    history.writes[0] = replace(history.writes[0], base_seq=5)


def dispatch_one_epoch_twice(history: History) -> None:
    history.writes[1] = replace(history.writes[1], dispatch_id="other")


def bind_two_holders(history: History) -> None:
    history.writes[2] = replace(history.writes[2], holder="w2")


def come_back_from_the_end(history: History) -> None:
    history.writes.append(replace(history.writes[2], revision=4, status="queued"))


def park_a_letter(history: History) -> None:
    history.letters.append(DeadLetter(id="1", reason="why", at=T0, origin="queue", body="", run_id=RUN))


def leave_a_message(history: History) -> None:
    history.left_over.append("queue aiki.events.0 holds 1")


def wait_for_ever(history: History) -> None:
    history.runs[RUN] = replace(history.runs[RUN], pending=("other",))


def make_no_progress(history: History) -> None:
    history.faults = [replace(history.faults[0], stuck=True)]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lose_the_run, "lost"),
        (lose_the_run_after_its_end_was_heard, "lost"),
        (ask_for_nothing, "duplicated"),
        (refuse_the_call, "wrong"),
        (start_the_job_twice, "duplicated"),
        (leave_it_running, "stuck"),
        (change_the_result, "wrong"),
        (fail_the_run, "wrong"),
        (make_the_child_wrong, "wrong"),
        (hear_something_else, "wrong"),
        (lose_an_entry, "journal"),
        (turn_back_the_clock, "journal"),
        (turn_back_the_epoch, "journal"),
        (record_a_task_twice, "duplicated"),
        (take_in_a_signal_twice, "duplicated"),
        (leave_a_journal_behind, "journal"),
        (count_a_lost_worker_as_an_attempt, "retries"),
        (execute_what_is_recorded, "duplicated"),
        (execute_twice_in_one_dispatch, "duplicated"),
        (skip_a_revision, "owners"),
        (go_back_an_epoch, "owners"),
        (go_back_behind_the_base, "owners"),
        (dispatch_one_epoch_twice, "owners"),
        (bind_two_holders, "owners"),
        (come_back_from_the_end, "wrong"),
        (park_a_letter, "dead letter"),
        (leave_a_message, "left over"),
        (wait_for_ever, "left over"),
        (make_no_progress, "stuck"),
    ],
)
def test_what_is_wrong_is_noticed(spoil: Callable[[History], None], kind: str) -> None:
    history = a_history()

    spoil(history)

    assert kind in kinds_of(history)


def test_a_worker_that_did_not_know_of_the_record_may_execute_again() -> None:
    history = a_history()

    history.replays.append(Replayed(4.0, OTHER, RUN, seen=0))
    history.attempts.append(replace(history.attempts[0], at=4.1, process=OTHER))

    assert check(history) == []
    assert executed_again(history) == 1


def test_a_write_that_is_reported_twice_counts_once() -> None:
    history = a_history()

    history.writes = [*history.writes[:2], *history.writes]

    assert check(history) == []


def test_what_only_a_wiped_broker_had_was_not_promised() -> None:
    history = a_history()
    lose_the_run(history)

    history.faults.append(Struck("broker-wipe", 1.2, 9.0))

    assert not_promised(history) == {RUN}
    assert check(history) == []


@pytest.mark.parametrize("accepted_at", [9.1, -60.0])
def test_a_run_that_the_broker_had_long_before_its_loss_or_after_it_is_promised(accepted_at: float) -> None:
    history = a_history()
    lose_the_run(history)

    history.accepted = [replace(history.accepted[0], at=accepted_at)]
    history.faults.append(Struck("broker-wipe", 1.2, 9.0))

    assert kinds_of(history) == {"lost"}


def test_what_was_confirmed_as_stored_is_promised_whatever_becomes_of_the_broker() -> None:
    history = a_history()
    lose_the_run(history)

    history.accepted = [replace(history.accepted[0], is_stored=True)]
    history.faults.append(Struck("broker-wipe", 1.2, 9.0))

    assert kinds_of(history) == {"lost"}


@pytest.mark.parametrize("number", [*range(1, 60), BURST])
def test_jobs_are_always_the_same(number: int) -> None:
    assert job_of(number) == job_of(number)
    assert job_of(number).arguments[0] == number
