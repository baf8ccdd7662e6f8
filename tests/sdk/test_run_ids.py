"""New runs travel together for a while, and in the long run everywhere."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import groupby

from aiki.engine.ids import partition_of
from aiki.sdk.run_ids import RUNS_TOGETHER, TOGETHER, RunIds

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 8


def places(run_ids: list[str]) -> list[int]:
    return [partition_of(run_id, PARTITIONS) for run_id in run_ids]


def test_runs_that_are_asked_for_together_belong_to_one_partition() -> None:
    made = RunIds()

    ((_, first), (_, second)) = Counter(
        places([made.next(NOW, PARTITIONS) for _ in range(2 * RUNS_TOGETHER)])
    ).most_common(2)

    # One in some thousand ids is of another partition.
    assert first > 0.9 * RUNS_TOGETHER
    assert second > 0.9 * RUNS_TOGETHER


def test_a_burst_is_spread_evenly() -> None:
    made = RunIds()

    shares = Counter(places([made.next(NOW, PARTITIONS) for _ in range(PARTITIONS * RUNS_TOGETHER * 3)]))

    assert len(shares) == PARTITIONS
    assert all(0.9 < share / (3 * RUNS_TOGETHER) < 1.1 for share in shares.values())


def test_who_asks_seldom_goes_on_to_the_next_partition_each_time() -> None:
    made = RunIds()

    found = places([made.next(NOW + number * TOGETHER, PARTITIONS) for number in range(PARTITIONS)])

    assert len([place for place, _ in groupby(found)]) > PARTITIONS - 2


def test_a_clock_that_goes_back_keeps_nobody_in_one_place() -> None:
    made = RunIds()
    made.next(NOW, PARTITIONS)

    found = places([made.next(NOW - timedelta(days=number), PARTITIONS) for number in range(1, PARTITIONS)])

    assert len([place for place, _ in groupby(found)]) > PARTITIONS - 3


def test_clients_begin_apart() -> None:
    assert len(set(places([RunIds().next(NOW, PARTITIONS) for _ in range(100)]))) == PARTITIONS


def test_no_two_runs_have_one_id() -> None:
    made = RunIds()

    assert len({made.next(NOW, PARTITIONS) for _ in range(20_000)}) == 20_000
