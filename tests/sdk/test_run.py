"""The run, as the code of a workflow sees it."""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest

from aiki.engine.payload import Payload
from aiki.errors import ConfigurationError, InvalidNameError, InvalidOptionError, PayloadError, RecordMismatchError
from aiki.sdk.calls import Caller
from aiki.sdk.run import Run
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Driver:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, signal: str = "null", *, is_silent: bool = False) -> None:
        self.asked: list[Any] = []
        self.callers: list[Caller] = []
        self.is_replaying = self.is_silent = is_silent
        self._signal = Payload(signal)

    def now(self) -> datetime:
        return NOW

    def call_task(self, task: Task[..., Any], arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        raise NotImplementedError

    def call_child(self, workflow: Workflow[..., Any], arguments: Payload, caller: Caller) -> Awaitable[Payload]:
        raise NotImplementedError

    def wait_for_signal(self, name: str, caller: Caller) -> Awaitable[Payload]:
        self.asked.append(("signal", name))
        return asyncio.sleep(0, self._signal)

    def sleep(self, delay: float, caller: Caller) -> Awaitable[None]:
        self.asked.append(("sleep", delay))
        self.callers.append(caller)
        return asyncio.sleep(0)

    def set_status(self, note: Payload, caller: Caller) -> None:
        self.asked.append(("status", note))

    def outside(self) -> AbstractContextManager[None]:
        return nullcontext()


def a_run(driver: Driver, *, run_id: str = "run-1") -> Run:
    return Run(
        driver,
        run_id=run_id,
        workflow="flow",
        version="1.0.0",
        arguments=Payload('{"n":1}'),
        seed=run_id,
        tags=("vip",),
    )


def test_it_knows_what_it_is() -> None:
    run = a_run(Driver())

    assert (run.id, run.workflow, run.version, run.tags) == ("run-1", "flow", "1.0.0", ("vip",))
    assert run.input == {"n": 1}
    assert run.now() == NOW
    assert repr(run) == "<run run-1 of flow@1.0.0>"


async def test_a_sleep_is_a_duration_and_names_the_line_that_asked() -> None:
    driver = Driver()

    await a_run(driver).sleep(timedelta(minutes=1))
    await a_run(driver).sleep(0.5)

    assert driver.asked == [("sleep", 60.0), ("sleep", 0.5)]
    assert driver.callers[0].function == "test_a_sleep_is_a_duration_and_names_the_line_that_asked"
    assert driver.callers[0].where.startswith("test_run.py:")


@pytest.mark.parametrize("duration", [-1, float("nan"), float("inf"), "1", None])
def test_a_sleep_that_makes_no_sense_is_refused(duration: Any) -> None:
    with pytest.raises(InvalidOptionError, match="duration must be"):
        a_run(Driver()).sleep(duration).close()


async def test_a_signal_is_read_as_the_type_that_is_asked_for() -> None:
    assert await a_run(Driver('"0.10"')).wait_for_signal("price", Decimal) == Decimal("0.10")
    unhashable: Any = Annotated[int, {"unit": "cents"}]
    assert await a_run(Driver("10")).wait_for_signal("price", unhashable) == 10
    assert await a_run(Driver('{"a":[1]}')).wait_for_signal("any") == {"a": [1]}


async def test_a_signal_of_another_type_says_so() -> None:
    with pytest.raises(RecordMismatchError, match="signal 'go'"):
        await a_run(Driver('"many"')).wait_for_signal("go", int)


async def test_a_signal_is_read_even_where_pydantic_reads_no_such_text() -> None:
    assert await a_run(Driver('"\\ud800"')).wait_for_signal("go", str) == "\ud800"


async def test_a_type_that_nothing_can_be_read_as_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the type of signal 'go'"):
        await a_run(Driver("1")).wait_for_signal("go", Driver)


def test_a_signal_needs_a_name() -> None:
    with pytest.raises(InvalidNameError):
        a_run(Driver()).wait_for_signal("no good").close()


def test_a_status_is_anything_that_pydantic_can_write() -> None:
    driver = Driver()

    a_run(driver).set_status({"at": NOW, "done": {1}})

    assert driver.asked == [("status", '{"at":"2026-01-01T00:00:00Z","done":[1]}')]


@pytest.mark.parametrize("value", [object(), float("nan")])
def test_a_status_that_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(PayloadError, match="status"):
        a_run(Driver()).set_status(value)


def test_chance_belongs_to_the_run() -> None:
    first, again, other = a_run(Driver()), a_run(Driver()), a_run(Driver(), run_id="run-2")

    assert first.uuid() == again.uuid() != other.uuid()
    assert first.random.random() == again.random.random() != other.random.random()


def test_lines_of_a_log_name_the_run_and_what_was_bound(caplog: pytest.LogCaptureFixture) -> None:
    log = a_run(Driver()).logger.bind(customer=7)

    with caplog.at_level(logging.DEBUG):
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("something.happened", n=1)
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("something.failed")

    assert [record.levelname for record in caplog.records] == [
        "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "ERROR"
    ]  # fmt: skip
    assert all("run_id='run-1'" in record.getMessage() and "customer=7" in record.getMessage()
               for record in caplog.records)  # fmt: skip
    assert caplog.records[-1].exc_info


def test_a_silent_run_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        a_run(Driver(is_silent=True)).logger.error("again")

    assert not caplog.records
