"""What is ended is over."""

import asyncio
from contextlib import suppress

import pytest

from aiki import asynchronous
from aiki.asynchronous import end

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "AGAIN_SECONDS", 0.01)


async def test_a_task_that_drops_a_cancellation_is_cancelled_again() -> None:
    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)

    await asyncio.wait_for(end(task), 10)

    assert task.cancelled()


async def test_it_waits_for_what_a_task_does_at_its_end_and_does_not_raise_what_it_raises() -> None:
    async def fails_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    task = asyncio.create_task(fails_at_the_end())
    await asyncio.sleep(0)

    await end(task, None)

    assert isinstance(task.exception(), ZeroDivisionError)


async def test_there_may_be_nothing_to_end() -> None:
    await end()
    await end(None)
