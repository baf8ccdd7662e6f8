"""How things are written for people."""

from datetime import timedelta

import pytest

from aiki.cli.wording import STATUS_STYLES, ago, duration, failure_line, operation_name, shorten, wait_line
from aiki.engine.journal import Failure, Wait, WaitKind
from aiki.engine.status import RunStatus
from aiki.testing.builders import T0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0ms"),
        (0, "0ms"),
        (0.0854, "85ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (3.24, "3.2s"),
        (59.96, "1m 00s"),
        (65, "1m 05s"),
        (3600, "1h 00m"),
        (7384, "2h 03m"),
        (86400 * 3 + 3600 * 4, "3d 04h"),
    ],
)
def test_a_duration_is_written_with_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


def test_a_moment_is_written_from_now_in_both_directions() -> None:
    assert ago(T0, now=T0 + timedelta(minutes=5)) == "5m 00s ago"
    assert ago(T0 + timedelta(days=2), now=T0) == "in 2d 00h"


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("task:send-email:5f0c5f0c5f0c5f0c#1", "send-email"),
        ("task:a.b:5f0c#12", "a.b"),
        ("timer:shop.workflows.remind#2", "sleep in remind"),
        ("signal:approved:5f0c#1", "signal approved"),
        ("child:invoice:5f0c#1", "child invoice"),
        ("something", "something"),
    ],
)
def test_an_operation_is_named_as_the_user_named_it(operation: str, name: str) -> None:
    assert operation_name(operation) == name


def test_a_failure_takes_one_line() -> None:
    assert failure_line(Failure(type="OSError", message="no\n  route")) == "OSError: no route"
    assert failure_line(Failure(type="KeyError", message="")) == "KeyError"


def test_a_wait_says_for_what_and_until_when() -> None:
    wait = Wait(kind=WaitKind.RETRY, operation="task:a:b#1", due_at=T0 + timedelta(seconds=30))

    assert wait_line(wait, now=T0) == "waits for the next attempt, due in 30.0s"


def test_what_is_cut_shows_that_it_was() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_every_status_and_every_wait_has_its_words() -> None:
    assert set(STATUS_STYLES) == set(RunStatus)
    for kind in WaitKind:
        assert wait_line(Wait(kind=kind, operation="x#1"), now=T0).startswith("waits for ")
