"""`aiki bench` where it needs no servers, and how it measures."""

import asyncio

import pytest

from aiki.cli.measuring import in_flight, one_at_a_time, percentile
from tests.cli.processes import CommandLine


def test_the_bench_measures_the_engine_inside_its_process(aiki: CommandLine) -> None:
    figures = aiki.tells("bench", "--embedded", "--runs", "12", "--alone", "10", "--at-once", "3")

    assert (figures["runs"], figures["at_once"]) == (12, 3)
    assert figures["steps_per_second"] == pytest.approx(3 * figures["runs_per_second"], rel=0.05)
    assert 0 < figures["alone_p50_ms"] <= figures["alone_p99_ms"]


async def test_work_is_done_as_often_as_asked_and_never_more_of_it_at_once() -> None:
    done: list[int] = []
    under_way: set[int] = set()
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        under_way.add(number)
        most = max(most, len(under_way))
        await asyncio.sleep(0)
        under_way.remove(number)
        done.append(number)

    measured = await in_flight(work, times=10, at_once=3)

    assert sorted(done) == list(range(10))
    assert most == 3
    assert len(measured.taken) == len(measured.ended) == 10
    assert measured.per_second == pytest.approx(10 / measured.seconds)


async def test_what_is_measured_one_at_a_time_ends_in_order() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    await one_at_a_time(work, times=5)

    assert done == [0, 1, 2, 3, 4]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
