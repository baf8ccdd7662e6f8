"""What a partition's owner remembers of its runs."""

from dataclasses import replace

from aiki.engine.payload import Payload
from aiki.orchestrator.cache import RunCache
from aiki.testing.builders import a_run, after, completed, running


def test_a_run_is_found_as_it_was_last_stored() -> None:
    cache = RunCache(1_000_000)
    run = a_run()

    cache.put(run)
    cache.put(newer := replace(run, revision=2))

    assert cache.get(run.run_id) == newer
    assert len(cache) == 1


def test_the_runs_that_were_not_used_for_longest_make_room() -> None:
    runs = [a_run(input=Payload("x" * 100_000)) for _ in range(4)]
    cache = RunCache(320_000)
    for run in runs[:3]:
        cache.put(run)
    cache.get(runs[0].run_id)

    cache.put(runs[3])

    assert cache.get(runs[1].run_id) is None
    assert [cache.get(runs[index].run_id) is not None for index in (0, 2, 3)] == [True, True, True]


def test_a_run_that_is_over_is_not_kept() -> None:
    cache = RunCache(1_000_000)
    run = running()
    cache.put(run)

    cache.put(after(run, completed(run)))

    assert cache.get(run.run_id) is None


def test_room_is_given_back_when_runs_are_dropped() -> None:
    cache = RunCache(250_000)
    for _ in range(10):
        run = a_run(input=Payload("x" * 100_000))
        cache.put(run)
        cache.drop([run.run_id, "unknown"])

    kept = [a_run(input=Payload("x" * 100_000)) for _ in range(2)]
    for run in kept:
        cache.put(run)

    assert len(cache) == 2
