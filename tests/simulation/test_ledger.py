"""What the ledger knows of a run beyond what was last written of it."""

from dataclasses import replace

import pytest

from aiki.engine.decide import decide
from aiki.engine.events import CancelRequested, Event, RetryRequested
from aiki.engine.journal import EntryKind
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange
from aiki.testing.builders import T0, a_moment, appended, completed, entry, orphaned, requested, started
from aiki.testing.simulation.ledger import Account, Ledger


class Story:
    """What happens to one run that may lose no worker, with a ledger beside it."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._ledger = Ledger(self.complaints.append, lambda: 0.0)
        self._run: RunState | None = None
        self.tell(requested("run-1", recoveries_max=0))
        self.tell(started(self.run))
        self.tell(appended(self.run))

    @property
    def run(self) -> RunState:
        assert self._run is not None
        return self._run

    @property
    def account(self) -> Account:
        return self._ledger.accounts["run-1"]

    def tell(self, event: Event) -> None:
        decision = decide(self._run, event, a_moment())
        assert decision.run is not None
        change = RunChange.between(self._run, decision.run, decision.journal)
        self._ledger.note(change)
        self._run = change.after

    def cancel(self, number: int) -> None:
        self.tell(CancelRequested(id=f"cancel-{number}", run_id="run-1", at=T0))

    def lose(self) -> None:
        """Lose the worker, and the next one, which learns nothing."""
        while not self.run.status.is_final:
            self.tell(orphaned(self.run))
            if not self.run.status.is_final:
                self.tell(started(self.run))
        assert self.run.status is RunStatus.DEAD_LETTERED

    def redrive(self) -> None:
        self.tell(RetryRequested(id="retry-1", run_id="run-1", at=T0))
        self.tell(started(self.run))

    def was_cancelled_in_vain(self) -> bool:
        assert self.complaints == []
        return self.account.was_cancelled_in_vain({"cancel-1", "cancel-2"})


def test_a_run_that_is_redriven_was_cancelled_in_vain_before_and_after_it_was_buried() -> None:
    early, late = Story(), Story()

    early.cancel(1)
    early.lose()
    early.redrive()
    late.lose()
    late.cancel(1)
    late.redrive()

    assert early.was_cancelled_in_vain()
    assert late.was_cancelled_in_vain()


def test_a_cancellation_counts_unless_the_run_is_opened_again() -> None:
    held, buried, never = Story(), Story(), Story()

    held.cancel(1)
    buried.cancel(1)
    buried.lose()
    never.lose()
    never.redrive()

    assert not held.was_cancelled_in_vain()
    assert not buried.was_cancelled_in_vain()
    assert not never.was_cancelled_in_vain()


def test_a_cancellation_that_is_asked_for_after_the_redrive_counts() -> None:
    story = Story()

    story.cancel(1)
    story.lose()
    story.redrive()
    story.cancel(2)

    assert not story.was_cancelled_in_vain()


def test_a_cancellation_that_was_recorded_counts_after_a_redrive_too() -> None:
    story = Story()

    story.cancel(1)
    story.tell(appended(story.run, entry(story.run, kind=EntryKind.CANCEL_REQUESTED, source="cancel-1", payload=None)))
    story.lose()
    story.redrive()

    assert not story.was_cancelled_in_vain()


def test_a_child_that_was_buried_is_told_from_one_that_failed_by_the_last_that_was_started() -> None:
    story = Story()

    def lose_child(child: str) -> None:
        failed = entry(story.run, kind=EntryKind.CHILD_FAILED, operation="child:x#1", source=child, payload=None)
        story.tell(appended(story.run, failed))

    lose_child("child-1")

    assert story.account.lost_children({"child-1"}) == {"child:x#1"}
    assert not story.account.lost_children({"child-2"})

    lose_child("child-2")

    assert not story.account.lost_children({"child-1"})
    assert story.complaints == []


def test_what_another_late_write_made_of_a_run_that_is_made_anew_is_taken_as_it_is() -> None:
    complaints: list[str] = []
    ledger, request = Ledger(complaints.append, lambda: 0.0), requested("run-1")
    earlier, later = _changed(None, request), _changed(None, request)
    began, went_on = (_changed(made.after, started(made.after)) for made in (earlier, later))

    ledger.note(later)

    assert not ledger.is_of_another(went_on)
    assert ledger.is_of_another(began)

    ledger.begin_anew(began.after, [])
    ledger.note(_changed(began.after, orphaned(began.after)))

    assert complaints == []


@pytest.mark.parametrize(("epoch_of_later", "is_mixed_up"), [(1, True), (2, False)])
def test_entries_of_an_earlier_life_count_if_the_later_one_has_not_gone_past_their_epoch(
    epoch_of_later: int, is_mixed_up: bool
) -> None:
    ledger, request = Ledger(lambda what: None, lambda: 0.0), requested("run-1")
    earlier, later = _changed(None, request), _changed(None, request)
    began = _changed(earlier.after, started(earlier.after))
    learnt = _changed(began.after, appended(began.after))
    assert learnt.journal
    assert not learnt.writes_run

    ledger.note(later)
    for _ in range(1, epoch_of_later):
        later = _changed(later.after, orphaned(later.after))
        ledger.note(later)

    assert ledger.is_of_another(learnt) is is_mixed_up


def test_a_run_that_a_late_write_makes_again_is_told_from_another_one_of_its_key() -> None:
    complaints: list[str] = []
    ledger = Ledger(complaints.append, lambda: 0.0)
    request = requested("run-1", retention=1.0)
    made = _changed(None, request)
    began = _changed(made.after, started(made.after))
    ended = _changed(began.after, completed(began.after))
    another = _changed(None, replace(request, id="another", incarnation="another"))

    ledger.note(made)
    assert not ledger.is_made_again(made)

    ledger.note(began)
    ledger.note(ended)
    assert ledger.is_made_again(made)
    assert not ledger.is_made_again(began)
    assert not ledger.is_made_again(another)

    ledger.note(another)
    for change in (
        began := _changed(another.after, started(another.after)),
        _changed(began.after, completed(began.after)),
    ):
        ledger.note(change)
    assert ledger.is_made_again(made)
    assert complaints == []


@pytest.mark.parametrize(("was_lost", "was_known"), [(True, False), (False, False), (True, True)])
def test_an_entry_is_forgotten_only_if_the_broker_lost_it_and_nobody_knew_it(was_lost: bool, was_known: bool) -> None:
    complaints: list[str] = []
    ledger = Ledger(complaints.append, lambda: 0.0)
    ledger.was_lost = lambda pair, seq: was_lost
    made = _changed(None, requested("run-1"))
    began = _changed(made.after, started(made.after))
    learnt, went_on = _changed(began.after, appended(began.after)), _changed(began.after, orphaned(began.after))
    if was_known:
        went_on = replace(went_on, before=replace(began.after, last_seq=1))

    for change in (made, began, learnt, went_on):  # What was learnt arrives late, and is not what went on from there.
        ledger.note(change)

    assert bool(complaints) is (was_known or not was_lost)


def _changed(before: RunState | None, event: Event) -> RunChange:
    decision = decide(before, event, a_moment())
    assert decision.run is not None
    return RunChange.between(before, decision.run, decision.journal)
