"""What the soak makes of what it sees: lengths of queues, trends, a table, a picture."""

import asyncio
from pathlib import Path

from bench.soak.curves import draw, table, trends
from bench.soak.samples import Sample, queue_lengths
from bench.soak.watched import Census

MINUTE = 60.0


def samples(name: str, *values: float) -> list[Sample]:
    return [{"at": number * MINUTE, name: value} for number, value in enumerate(values)]


def test_the_lengths_of_queues_are_read_from_what_the_broker_prints() -> None:
    assert queue_lengths('"aiki.events.0 3;greet@1.0.0 12;"') == {"aiki.events.0": 3, "greet@1.0.0": 12}


def test_what_grows_is_told_from_what_comes_and_goes() -> None:
    (leaking,) = trends(samples("worker/MiB", *(50 + 2 * n for n in range(60))), after=0)
    (steady,) = trends(samples("worker/MiB", *(50 + n % 3 for n in range(60))), after=0)

    assert not leaking.is_flat
    assert round(leaking.per_hour) == 120
    assert steady.is_flat


def test_the_warm_up_does_not_count() -> None:
    (found,) = trends(samples("worker/tasks", 1, 10, 20, 30, *[40] * 56), after=4 * MINUTE)

    assert found.is_flat
    assert found.median == found.last_quarter == 40


def test_what_is_missing_from_most_samples_has_no_trend() -> None:
    assert trends([*samples("mongodb/MiB", *[1] * 20), *({"at": 2000.0 + n} for n in range(30))], after=0) == []


def test_a_table_and_a_picture_are_made_of_it(tmp_path: Path) -> None:
    found = samples("veteran worker/MiB", *range(60))
    picture = tmp_path / "soak.png"

    draw(found, picture, title="an hour")

    assert "| veteran worker, MiB | 29.5 | 7.0 | 52.0 | +60.0 |" in table(trends(found, after=0))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000


async def test_a_process_counts_its_tasks_and_objects() -> None:
    census = Census()
    before = census.take()
    waiting = asyncio.create_task(asyncio.sleep(60))
    after = census.take()
    waiting.cancel()

    assert after["tasks"] == before["tasks"] + 1
    assert after["objects"] > 0
