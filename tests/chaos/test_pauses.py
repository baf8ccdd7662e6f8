"""The longest pauses are told with where the work stood and what was broken."""

import json
from collections.abc import Sequence
from pathlib import Path

from aiki.engine.ids import partition_of
from aiki.testing.chaos.history import PARTITIONS, Accepted, Attempted, Heard, History, Replayed, Struck, Written
from aiki.testing.chaos.logs import Said, read_logs
from aiki.testing.chaos.pauses import Stage, longest_pauses


def runs_of(partition: int, count: int) -> Sequence[str]:
    names = (f"run-{number}" for number in range(1000))
    return [name for name in names if partition_of(name, PARTITIONS) == partition][:count]


def written(run_id: str, at: float, status: str) -> Written:
    return Written(run_id, 1, status, 1, "dispatch", None, 0, at)


def served(service: str, at: float, partition: int) -> Said:
    return Said(at, service, "consumer.served", {"queue": f"partition {partition}"})


ONE, OTHER, THIRD = runs_of(1, 3)


def test_a_pause_tells_where_the_runs_of_its_partition_stood() -> None:
    history = History(
        accepted=[Accepted(9.0, ONE, False), Accepted(10.0, OTHER, False), Accepted(15.0, THIRD, False)],
        replays=[Replayed(9.0, 1, ONE, 0)],
        attempts=[Attempted(12.0, 1, ONE, "add", "key", 1)],
        writes=[written(OTHER, 18.0, "queued"), written(runs_of(2, 1)[0], 19.0, "queued")],
        progress=[(10.0, ONE), (20.0, ONE)],
        faults=[Struck("broker-kill", 1.0, 2.0)],
    )

    (pause,) = longest_pauses(history)

    assert (pause.began, pause.seconds, pause.partitions) == (0.0, 10.0, [1])
    # The first is held for 2 s and in its task for 8, the second 8 and 2, and the third is there for the last 5.
    assert pause.stages == {Stage.ASKED: 1.3, Stage.IN_TASK: 0.8, Stage.HELD: 0.2, Stage.QUEUED: 0.2}
    assert (pause.unwritten, pause.untaken) == (8.0, 10.0)
    assert (pause.elsewhere, pause.healthy) == (1, 10.0)
    assert pause.broken == []


def test_a_pause_tells_what_was_broken_who_owned_the_partition_and_what_was_noticed() -> None:
    history = History(
        progress=[(10.0, ONE), (20.0, ONE)],
        faults=[
            Struck("orchestrator-freeze-long", 5.0, 16.0, "orchestrator-0"),
            Struck("store-kill", 7.0, 8.5, "member-1"),
            Struck("worker-kill", 21.0, 22.0, "worker-0"),
        ],
        said=[
            served("orchestrator-1", 1.0, 1),
            served("orchestrator-0", 2.0, 1),
            served("orchestrator-1", 3.0, 2),
            Said(14.0, "orchestrator-1", "store.unavailable", {}),
            served("orchestrator-1", 15.0, 1),
            Said(15.5, "worker-0", "store.back", {}),
            Said(17.0, "orchestrator-1", "store.back", {}),
            Said(18.0, "orchestrator-1", "consumer.interrupted", {"error": "not confirmed"}),
        ],
    )

    (pause,) = longest_pauses(history)

    assert pause.healthy == 1.0  # From 19, three seconds after the first was healed.
    assert pause.owners == ["orchestrator-0", "orchestrator-1 from +5.0"]
    assert pause.broken == [
        "orchestrator-freeze-long of orchestrator-0 (6.0 s from +0.0)",
        "store-kill of member-1 (healed -1.5)",
    ]
    assert pause.noticed == ["orchestrator-1 without the stores for 3.0 s", "orchestrator-1 1 × 'not confirmed'"]
    assert "runs: 1 held, between two tasks" in str(pause)
    assert "orchestrator-1 from +5.0" in str(pause)


def test_runs_that_are_over_stand_nowhere() -> None:
    child = runs_of(1, 5)[4]
    history = History(
        accepted=[Accepted(1.0, ONE, False), Accepted(1.0, OTHER, False)],
        heard=[Heard(10.0, ONE, "completed", 1)],
        writes=[written(ONE, 9.0, "completed"), written(OTHER, 9.0, "failed"), written(child, 9.0, "completed")],
        progress=[(10.0, ONE), (20.0, OTHER)],
    )

    (pause,) = longest_pauses(history)

    assert pause.stages == {Stage.ENDED: 1.0}


def test_partitions_that_stand_still_together_are_told_of_once_and_short_pauses_not_at_all() -> None:
    history = History(
        progress=[
            *((at, runs_of(1, 1)[0]) for at in (0.0, 10.0, 12.0)),
            *((at, runs_of(2, 1)[0]) for at in (0.5, 9.5, 10.0)),
            *((at, runs_of(3, 1)[0]) for at in (0.0, 4.0, 6.0)),
        ],
    )

    pauses = longest_pauses(history)

    assert [(pause.seconds, pause.partitions) for pause in pauses] == [(10.0, [1, 2]), (4.0, [3])]


def test_logs_are_read_in_the_order_of_time_and_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    lines = [
        {"at": "1970-01-01T00:00:02.500+00:00", "event": "store.back", "name": "one"},
        {"at": "1970-01-01T00:00:01+00:00", "event": "store.unavailable"},
    ]
    for number, line in enumerate(lines):
        text = f"stopping: finishing what is in hand\n{json.dumps(line)}\n" + json.dumps(line)[:20]
        (tmp_path / f"{number}.log").write_text(text, encoding="utf-8")

    said = read_logs({"a": tmp_path / "0.log", "b": tmp_path / "1.log", "c": tmp_path / "2.log"})

    assert said == [Said(1.0, "b", "store.unavailable", {}), Said(2.5, "a", "store.back", {"name": "one"})]
