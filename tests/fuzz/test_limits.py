"""Exactly at each limit everything works; one beyond it is refused where it is made, before anything is sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import aiki
from aiki import Client, Handle, InvalidNameError, InvalidOptionError, PayloadTooLargeError, Run, RunFailedError, Worker
from aiki import task as a_task
from aiki import workflow as a_workflow
from aiki.codec.messages import MESSAGE_BYTES_MAX
from aiki.engine.payload import PAYLOAD_BYTES_MAX
from aiki.engine.queries import RunFilter
from aiki.engine.status import RunStatus
from aiki.sdk.client import Client as SomeClient
from broker_topology.names import NAME_BYTES_MAX
from tests.sdk.support import an_engine

PATIENCE = 30.0
HALF = "\ud800"
QUOTES = len('""')
ARGUMENT = len('{"text":""}')


@a_task
async def repeat(text: str, times: int) -> str:
    return text * times


@a_task
async def complain(characters: int) -> None:
    raise ValueError("x" * characters)


@a_workflow
async def echo(run: Run, text: str) -> str:
    return text


@a_workflow
async def grow(run: Run, times: int) -> int:
    return len(await repeat.run(run, "x", times))


@a_workflow
async def listen(run: Run, name: str) -> int:
    return len(await run.wait_for_signal(name, str))


@a_workflow
async def fail(run: Run, characters: int) -> None:
    await complain.run(run, characters)


@a_workflow
async def part(run: Run) -> str:
    await run.wait_for_signal("go")
    return "x" * (PAYLOAD_BYTES_MAX - QUOTES)


@a_workflow
async def whole(run: Run, parts: int) -> int:
    return sum(map(len, await asyncio.gather(*(part.run(run) for _ in range(parts)))))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiki.embedded() as client, Worker(client, workflows=[echo, grow, listen, fail, part, whole]):
        yield client


async def test_an_input_and_a_result_may_have_a_mebibyte(client: Client) -> None:
    text = "x" * (PAYLOAD_BYTES_MAX - ARGUMENT)

    handle = await echo.enqueue(client, text)

    assert await handle.wait_for_completion(timeout=PATIENCE) == text
    with pytest.raises(PayloadTooLargeError) as caught:
        await echo.enqueue(client, text + "x")
    assert (caught.value.size, caught.value.bytes_max) == (PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX)
    with pytest.raises(PayloadTooLargeError):
        await echo.enqueue(client, text[:-1] + "é")  # Bytes count, not characters.
    assert len((await client.find()).runs) == 1


async def test_a_result_of_a_task_may_have_a_mebibyte_and_one_more_byte_fails_the_run(client: Client) -> None:
    most = PAYLOAD_BYTES_MAX - QUOTES

    fits, does_not = await grow.enqueue(client, most), await grow.enqueue(client, most + 1)

    assert await fits.wait_for_completion(timeout=PATIENCE) == most
    with pytest.raises(RunFailedError, match="1,048,577 bytes as JSON, 1,048,576 are allowed"):
        await does_not.wait_for_completion(timeout=PATIENCE)


async def test_a_signal_may_have_a_mebibyte(client: Client) -> None:
    handle = await listen.enqueue(client, "said")
    most = PAYLOAD_BYTES_MAX - QUOTES

    with pytest.raises(PayloadTooLargeError, match="signal 'said'"):
        await handle.send("said", "x" * (most + 1))
    await handle.send("said", "x" * most)

    assert await handle.wait_for_completion(timeout=PATIENCE) == most


async def test_a_run_that_holds_more_than_a_message_can_be_looked_at_and_ends(client: Client) -> None:
    parts = MESSAGE_BYTES_MAX // PAYLOAD_BYTES_MAX + 1
    handle = await whole.enqueue(client, parts)
    await until(lambda: stands(handle, RunStatus.AWAITING_CHILD))
    await handle.pause()
    await until(lambda: stands(handle, RunStatus.PAUSED))

    children = [client.handle(run.run_id) for run in (await client.find(RunFilter(workflow="part"))).runs]
    await asyncio.gather(*(child.send("go") for child in children))
    await asyncio.gather(*(child.wait_for_completion(timeout=PATIENCE) for child in children))

    async def holds_all() -> bool:
        return len((await handle.get()).inbox) == parts

    await until(holds_all)
    (listed,) = (await client.find(RunFilter(workflow="whole"))).runs
    assert {item.payload for item in listed.inbox} == {None}
    assert {item.id for item in listed.inbox} == {child.id for child in children}
    await client.handle(handle.id).resume()
    assert await handle.wait_for_completion(timeout=PATIENCE) == parts * (PAYLOAD_BYTES_MAX - QUOTES)


async def stands(handle: Handle[Any], status: RunStatus) -> bool:
    return await handle.status() is status


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - not every change is announced
            await asyncio.sleep(0.05)


async def test_the_message_of_a_failure_is_cut_and_never_an_obstacle(client: Client) -> None:
    handle = await fail.enqueue(client, 2 * PAYLOAD_BYTES_MAX)

    with pytest.raises(RunFailedError, match=r"ValueError: x{100}"):
        await handle.wait_for_completion(timeout=PATIENCE)
    failure = (await handle.get()).failure
    assert failure is not None
    assert len(failure.message) < 10_000


async def test_a_key_and_tags_have_limits_of_their_own(client: Client) -> None:
    fitting = echo.with_options(idempotency_key="k" * 512, tags=["t" * 100, *map(str, range(31))])
    handle = await fitting.enqueue(client, "x")
    wide = await echo.with_options(idempotency_key="\U0001f600" * 512, tags=["\U0001f600" * 100]).enqueue(client, "x")

    run = await handle.get()
    assert (len(run.key or ""), len(run.tags)) == (512, 32)
    assert (await wide.get()).tags == ("\U0001f600" * 100,)
    with pytest.raises(InvalidOptionError, match="512 characters"):
        echo.with_options(idempotency_key="k" * 513)
    with pytest.raises(InvalidOptionError, match="100 characters"):
        echo.with_options(tags=["t" * 101])
    with pytest.raises(InvalidOptionError, match="at most 32"):
        echo.with_options(tags=list(map(str, range(33))))
    with pytest.raises(InvalidOptionError, match="valid Unicode"):
        echo.with_options(idempotency_key=HALF)
    with pytest.raises(InvalidOptionError, match="valid Unicode"):
        echo.with_options(tags=[HALF])


async def test_a_signal_is_named_as_the_workflow_may_name_it(client: Client) -> None:
    longest = "s" * 100
    handle = await listen.enqueue(client, longest)

    for name in ("", "s" * 101, "what was said", HALF):
        with pytest.raises(InvalidNameError, match="name of a signal"):
            await handle.send(name, "x")
    await handle.send(longest, "x")

    assert await handle.wait_for_completion(timeout=PATIENCE) == 1


ASKED: list[Callable[[SomeClient, str], Any]] = [
    lambda client, given: client.handle(given),
    lambda client, given: client.get(given),
    lambda client, given: client.dead_letter(given),
    lambda client, given: client.redrive(given),
    lambda client, given: client.discard(given),
]


@pytest.mark.parametrize("ask", ASKED)
async def test_what_can_be_no_id_is_never_asked_for(ask: Callable[[SomeClient, str], Any]) -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        for given in ("", "x" * 256, HALF, "x" * 9_000_000):
            with pytest.raises(InvalidOptionError, match="1 to 255 characters") as caught:
                await ask(client, given)
            assert len(str(caught.value)) < 300


async def test_runs_are_found_by_the_moment_whatever_its_time_zone(client: Client) -> None:
    run = await (await echo.enqueue(client, "x")).get()
    elsewhere = run.created_at.astimezone(timezone(timedelta(hours=9)))
    second = timedelta(seconds=1)

    assert (await client.find(RunFilter(created_after=elsewhere - second, created_before=elsewhere + second))).runs
    assert not (await client.find(RunFilter(created_after=elsewhere + second))).runs
    assert not (await client.find(RunFilter(created_before=elsewhere - second))).runs
    for moment in (datetime(2026, 1, 1), datetime.min.replace(tzinfo=elsewhere.tzinfo)):  # noqa: DTZ001 - that is it
        with pytest.raises(InvalidOptionError, match="a datetime with a time zone"):
            await client.find(RunFilter(created_before=moment))
    assert (await client.find(RunFilter(created_after=datetime.min.replace(tzinfo=UTC)))).runs


@pytest.mark.parametrize("option", ["delay", "retention", "timeout"])
def test_a_duration_may_have_a_century(option: str) -> None:
    century = 100 * 365 * 86_400.0

    echo.with_options(**{option: century})  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="at most a century"):
        echo.with_options(**{option: century + 1})  # type: ignore[arg-type]


def test_the_longest_names_make_a_queue_that_the_broker_takes() -> None:
    longest = a_workflow(name="n" * 100, version="v" * 100)(echo.function)

    assert len(longest.queue.encode()) <= NAME_BYTES_MAX
    with pytest.raises(InvalidNameError, match="101 characters"):
        a_workflow(name="n" * 101)(echo.function)
    with pytest.raises(InvalidNameError, match="101 characters"):
        a_workflow(version="v" * 101)(echo.function)
