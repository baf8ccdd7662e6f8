"""The table of a chaos run tells how long nothing was achieved."""

from aiki.engine.ids import partition_of
from aiki.testing.chaos.checker import Violation
from aiki.testing.chaos.history import History, Struck
from aiki.testing.chaos.report import KindReport, Report, added_up, longest_pause, report_of, table


def test_the_longest_pause_is_one_that_touches_the_fault() -> None:
    moments = [0.0, 5.0, 5.1, 5.2, 7.2, 7.3, 20.0]

    assert longest_pause(moments, Struck("kill", 5.15, 5.25)) == 2.0
    assert longest_pause(moments, Struck("kill", 1.0, 1.1)) == 5.0
    assert longest_pause([], Struck("kill", 1.0, 1.1)) == 0.0


def test_a_pause_that_begins_just_after_the_fault_was_healed_counts() -> None:
    moments = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 3.7]

    assert longest_pause(moments, Struck("freeze", 0.05, 0.15)) == 3.0


def test_the_table_has_a_line_for_each_kind_and_tells_what_is_wrong() -> None:
    one, other = (
        "run-0",
        next(f"run-{n}" for n in range(1, 99) if partition_of(f"run-{n}", 8) != partition_of("run-0", 8)),
    )
    history = History(
        progress=[(0.0, one), (0.0, other), (1.0, one), (2.0, one), (3.0, one), (3.0, other)],
        faults=[Struck("worker-kill", 1.0, 1.5), Struck("burst", 1.0, 1.1)],
    )

    report = report_of(history, [Violation("lost", "run")], seed="7")

    shown = table(report)
    assert [(kind.kind, kind.count, kind.pauses[-1], kind.partition_longest) for kind in report.kinds] == [
        ("burst", 1, 1.0, 3.0),
        ("worker-kill", 1, 1.0, 3.0),
    ]
    assert "worker-kill" in shown
    assert "lost=1 duplicated=0 wrong=0 other=0" in shown
    assert report.as_json()["violations"] == {"lost": 1}


def a_report(seed: str, *kinds: KindReport) -> Report:
    return Report(
        seed=seed,
        seconds=10.0,
        faults=sum(kind.count for kind in kinds),
        kinds=kinds,
        runs=100,
        tasks=300,
        executed_again=1,
        not_promised=0,
        violations={"lost": 1},
    )


def test_reports_of_several_runs_add_up_to_one() -> None:
    one = a_report("1", KindReport("burst", [0.1, 0.3], None, 1.0), KindReport("worker-cut", [0.2], 0.2, 0.5))
    other = a_report("2", KindReport("burst", [0.2], 0.2, 2.0))

    both = added_up([one, other])

    assert both.kinds == [KindReport("burst", [0.1, 0.2, 0.3], 0.2, 2.0), KindReport("worker-cut", [0.2], 0.2, 0.5)]
    assert (both.seed, both.faults, both.runs, both.violations) == ("1, 2", 4, 200, {"lost": 2})
    assert Report.from_json(both.as_json()) == both
