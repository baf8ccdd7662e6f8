"""Logs: heard as far as the application says, and readable for people and programs."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from aiki.observability import configure_logging, get_logger


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """Logging as it was, whatever a test configures."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    drivers = [logging.getLogger(name) for name in ("aio_pika", "aiormq", "pymongo", "motor")]
    levels = [driver.level for driver in drivers]
    yield root
    root.handlers[:], root.level = handlers, level
    for driver, before in zip(drivers, levels, strict=True):
        driver.setLevel(before)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_application_hears_events_in_its_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("aiki.test")

    with caplog.at_level(logging.INFO, "aiki.test"):
        log.info("task.retried", attempt=2, task="100% %s")
        log.debug("task.looked_at")

    (record,) = caplog.records
    assert record.name == "aiki.test"
    assert record.getMessage() == "task.retried attempt=2 task='100% %s'"


def test_nothing_is_written_that_nobody_asked_for(capfd: pytest.CaptureFixture[str], root: logging.Logger) -> None:
    root.handlers[:] = []
    root.setLevel(logging.WARNING)

    get_logger("aiki.quiet").info("task.retried")

    assert capfd.readouterr() == ("", "")


def test_json_has_the_event_its_fields_and_what_is_bound_around_it() -> None:
    stream = io.StringIO()
    configure_logging(style="json", stream=stream)

    with structlog.contextvars.bound_contextvars(run_id="run-1"):
        get_logger("aiki.test").bind(worker="w").warning("task.retried", attempt=2)

    (line,) = lines(stream)
    assert line.pop("at")
    assert line == {
        "level": "warning",
        "logger": "aiki.test",
        "event": "task.retried",
        "attempt": 2,
        "run_id": "run-1",
        "worker": "w",
    }


def test_an_exception_takes_one_line_of_json_too() -> None:
    stream = io.StringIO()
    configure_logging(style="json", stream=stream)

    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("aiki.test").exception("task.broke", value=object)

    (line,) = lines(stream)
    assert "ValueError: boom" in str(line["exception"])


def test_people_read_the_time_the_event_and_its_fields() -> None:
    stream = io.StringIO()
    configure_logging(style="console", stream=stream)

    get_logger("aiki.test").info("task.retried", attempt=2)

    assert "task.retried" in stream.getvalue()
    assert "attempt=2" in stream.getvalue()
    assert "aiki.test" not in stream.getvalue()


def test_what_is_no_terminal_gets_json() -> None:
    stream = io.StringIO()
    configure_logging(style="auto", stream=stream)

    get_logger("aiki.test").info("task.retried")

    assert lines(stream)[0]["event"] == "task.retried"


def test_logs_of_others_are_written_alike_and_those_of_drivers_are_left_to_our_adapters() -> None:
    stream = io.StringIO()
    configure_logging(style="json", stream=stream)

    logging.getLogger("shop").warning("sold %d", 3)
    logging.getLogger("aiormq.connection").error("transport lost")

    (line,) = lines(stream)
    assert line["event"] == "sold 3"
    assert line["logger"] == "shop"


def test_the_last_configuration_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(level="debug", style="json", stream=first)
    configure_logging(level="error", style="json", stream=second)

    get_logger("aiki.test").warning("task.retried")
    get_logger("aiki.test").error("task.broke")

    assert first.getvalue() == ""
    assert [line["event"] for line in lines(second)] == ["task.broke"]
