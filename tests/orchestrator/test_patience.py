"""Patience with the store: everything is tried again, and the log says what changed, once."""

import asyncio

import pytest

from aiki.errors import StoreError, StoreUnavailableError
from aiki.orchestrator.patience import StorePatience
from aiki.testing.clock import ManualClock


def a_patience() -> StorePatience:
    return StorePatience(ManualClock(), retry_delay=0.1, retry_delay_max=1.0)


def refuse(patience: StorePatience) -> None:
    with pytest.raises(StoreUnavailableError), patience.watching():
        raise StoreUnavailableError("it is away")


def succeed(patience: StorePatience) -> None:
    with patience.watching():
        pass


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split()[0] for record in caplog.records]


async def test_what_the_store_refuses_is_done_again_until_it_works() -> None:
    clock = ManualClock()
    patience = StorePatience(clock, retry_delay=0.1, retry_delay_max=1.0)
    tries = 0

    async def work_the_third_time() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StoreUnavailableError("it is away")
        return "done"

    insisting = asyncio.create_task(patience.insist(work_the_third_time))
    await clock.advance(10)

    assert await insisting == "done"
    assert tries == 3


async def test_an_error_that_no_waiting_mends_passes_through() -> None:
    async def fail() -> None:
        raise StoreError("no cursor of ours")

    with pytest.raises(StoreError, match="no cursor"):
        await a_patience().insist(fail)


def test_the_log_says_once_that_the_store_is_away_and_once_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    patience = a_patience()

    with caplog.at_level("INFO", logger="aiki.orchestrator"):
        for _ in range(3):
            refuse(patience)
        for _ in range(3):
            succeed(patience)

    assert patience.is_store_up
    assert said(caplog) == ["store.unavailable", "store.back"]


def test_an_answer_that_was_on_its_way_when_the_store_went_does_not_mean_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    patience = a_patience()

    with caplog.at_level("INFO", logger="aiki.orchestrator"), patience.watching():
        refuse(patience)

    assert not patience.is_store_up
    assert said(caplog) == ["store.unavailable"]


def test_a_refusal_that_comes_late_does_not_mean_that_the_store_is_away_again() -> None:
    patience = a_patience()

    def be_refused_late() -> None:
        with patience.watching():
            refuse(patience)
            succeed(patience)
            raise StoreUnavailableError("it was away")

    with pytest.raises(StoreUnavailableError):
        be_refused_late()

    assert patience.is_store_up
