"""Retry policies: how often, when, and for what."""

from datetime import timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.engine.retry import RETRY_GRID_MS, RetryAfter, exponential, fixed, never, snap


def seconds(delay: timedelta | None) -> float | None:
    return None if delay is None else delay.total_seconds()


def test_never_means_one_attempt() -> None:
    assert never().next_delay(1, ValueError()) is None


def test_fixed_waits_the_same_before_each_attempt() -> None:
    policy = fixed(max_attempts=3, delay=1.0)

    assert [seconds(policy.next_delay(n, ValueError())) for n in (1, 2, 3)] == [1.0, 1.0, None]


def test_exponential_grows_by_its_factor_on_the_grid() -> None:
    policy = exponential(max_attempts=5, base_delay=1.0)

    assert [seconds(policy.next_delay(n, ValueError())) for n in range(1, 6)] == [1.0, 1.995, 3.981, 7.943, None]


def test_no_delay_exceeds_the_maximum() -> None:
    policy = exponential(max_attempts=99, base_delay=1.0, max_delay=10.0)

    assert seconds(policy.next_delay(50, ValueError())) == 10.0


def test_a_policy_without_a_maximum_does_not_overflow() -> None:
    policy = exponential(max_attempts=100_000, base_delay=1.0, factor=10.0)

    assert policy.next_delay(99_999, ValueError()) == timedelta(days=365)


def test_full_jitter_draws_between_nothing_and_the_whole_delay() -> None:
    policy = exponential(max_attempts=3, base_delay=10.0, jitter=True)

    assert seconds(policy.next_delay(1, ValueError(), random=0.0)) == 0.0
    assert seconds(policy.next_delay(1, ValueError(), random=0.5)) == pytest.approx(5.0, rel=0.06)


def test_retry_on_and_give_up_on_choose_by_class() -> None:
    policy = fixed(3, retry_on=OSError, give_up_on=[FileNotFoundError])

    assert policy.next_delay(1, ConnectionError()) is not None
    assert policy.next_delay(1, ValueError()) is None
    assert policy.next_delay(1, FileNotFoundError()) is None


def test_a_task_may_say_when_it_wants_to_be_retried() -> None:
    policy = fixed(2, delay=1.0, retry_on=OSError)

    assert seconds(policy.next_delay(1, RetryAfter(timedelta(minutes=2)))) == pytest.approx(120, rel=0.06)
    assert policy.next_delay(2, RetryAfter(5)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: fixed(max_attempts=0),
        lambda: fixed(max_attempts=True),
        lambda: fixed(delay=-1),
        lambda: fixed(delay=float("nan")),
        lambda: exponential(factor=0.5),
        lambda: exponential(max_delay=-1),
        lambda: fixed(retry_on=cast("type[Exception]", "ValueError")),
        lambda: RetryAfter(-1),
        lambda: RetryAfter(float("inf")),
    ],
)
def test_values_that_make_no_sense_are_refused_where_they_are_written(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"must be|take"):
        wrong()


def test_the_grid_has_twenty_steps_a_decade_from_a_tenth_of_a_second_to_an_hour() -> None:
    assert RETRY_GRID_MS[0] == 100
    assert RETRY_GRID_MS[20] == 1000
    assert RETRY_GRID_MS[-1] == 3_600_000
    assert [*RETRY_GRID_MS] == sorted(set(RETRY_GRID_MS))


@given(st.floats(100, 3_600_000))
def test_a_delay_on_the_grid_is_within_six_percent_of_what_was_asked(delay_ms: float) -> None:
    assert snap(delay_ms) in RETRY_GRID_MS
    assert snap(delay_ms) == pytest.approx(delay_ms, rel=0.065)
    assert snap(snap(delay_ms)) == snap(delay_ms)


@given(st.floats(0, 99.9) | st.floats(3_600_001, 1e12))
def test_a_delay_off_the_grid_stays_as_it_is(delay_ms: float) -> None:
    assert snap(delay_ms) == round(delay_ms)
