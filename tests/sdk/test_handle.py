"""Handles: outcomes are pushed, survive lost connections, and cost next to nothing to wait for."""

import asyncio
import gc
from dataclasses import dataclass
from datetime import timedelta

import pytest

from aiki.engine.commands import ExecuteRun
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload, dump_payload
from aiki.engine.queries import GetRun
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import (
    CompletionTimeoutError,
    EnqueueTimeoutError,
    PayloadError,
    QueryFailedError,
    RecordMismatchError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunNotRetryableError,
)
from aiki.sdk.client import Client
from aiki.sdk.outcomes import Interest, Outcome
from aiki.sdk.run import Run
from aiki.sdk.workflow import workflow
from aiki.testing.builders import T0
from tests.sdk.support import SOON, Engine, an_engine, eventually


@dataclass
class Greeting:
    text: str


@workflow
async def greet(run: Run, name: str) -> Greeting:
    return Greeting(f"Hello {name}")


def hello(_command: object) -> Payload:
    return dump_payload({"text": "Hello"})


def failing(_command: object) -> Failure:
    return Failure(type="ValueError", message="no such name")


def questions_about(engine: Engine, run_id: str) -> int:
    """Tell how often a run was asked for, where nobody takes questions."""
    asked = [request.query for request in engine.hub.ready("aiki.queries")]
    return sum(isinstance(query, GetRun) and query.run_id == run_id for query in asked)


async def test_the_result_has_the_type_that_the_workflow_says() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(hello)

        handle = await greet.enqueue(client, "Ada")

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")
        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_a_result_of_another_type_is_said_so() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(lambda _command: dump_payload(["not", "a", "greeting"]))

        handle = await greet.enqueue(client, "Ada")

        with pytest.raises(RecordMismatchError):
            await handle.wait_for_completion(timeout=SOON)


async def test_an_outcome_is_pushed_and_nobody_asks_for_it() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        go = asyncio.Event()
        await engine.start_worker(hello, go=go)
        asked: list[str] = []
        client.connection.listener._ask_run = _counting(client, asked)

        handles = [await greet.enqueue(client, f"{n}") for n in range(200)]
        waiting = [asyncio.create_task(handle.wait_for_completion(timeout=SOON)) for handle in handles]
        await asyncio.sleep(0)
        go.set()

        assert await asyncio.gather(*waiting) == [Greeting("Hello")] * 200
        assert asked == []


async def test_an_outcome_that_came_before_anybody_waited_is_kept_with_the_handle() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")
        await eventually(lambda: handle._interest.outcome)
        asked: list[str] = []
        client.connection.listener._ask_run = _counting(client, asked)

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")
        assert asked == []


async def test_a_dropped_handle_leaves_nothing_behind() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handles = [await greet.enqueue(client, "Ada") for _ in range(3)]
        assert len(client.connection.listener._interests) == 3

        del handles
        gc.collect()

        assert len(client.connection.listener._interests) == 0


async def test_a_client_that_does_not_listen_begins_to_when_somebody_waits() -> None:
    async with an_engine() as engine:
        client = await engine.client(listen=False)
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_a_handle_made_by_id_in_another_process_hears_of_the_outcome() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        go = asyncio.Event()
        await engine.start_worker(hello, go=go)
        run_id = (await greet.enqueue(client, "Ada")).id
        typed, untyped = other.handle(run_id, greet), other.handle(run_id)
        waiting = [asyncio.create_task(handle.wait_for_completion(timeout=SOON)) for handle in (typed, untyped)]

        await eventually(lambda: other.connection.listener._watchers.get(run_id) == 2)
        go.set()

        assert await asyncio.gather(*waiting) == [Greeting("Hello"), {"text": "Hello"}]
        assert other.connection.listener._watchers == {}


async def test_a_handle_made_by_id_finds_what_ended_long_ago() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")
        await handle.wait_for_completion(timeout=SOON)

        assert await other.handle(handle.id, greet).wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_waiting_survives_a_lost_connection_by_asking_once_for_each_run() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        go = asyncio.Event()
        await engine.start_worker(hello, go=go)
        handles = [await greet.enqueue(client, f"{n}") for n in range(20)]
        asked: list[str] = []
        client.connection.listener._ask_run = _counting(client, asked)
        waiting = [asyncio.create_task(handle.wait_for_completion(timeout=SOON)) for handle in handles * 2]
        await asyncio.sleep(0)

        engine.hub.isolate(client.connection.broker)  # type: ignore[arg-type]
        go.set()
        await eventually(lambda: _all_completed(engine, 20))
        engine.hub.rejoin(client.connection.broker)  # type: ignore[arg-type]

        assert await asyncio.gather(*waiting) == [Greeting("Hello")] * 40
        assert sorted(asked) == sorted(handle.id for handle in handles)


async def test_waiting_survives_an_outage_of_the_whole_broker() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handle = await greet.enqueue(client, "Ada")
        waiting = asyncio.create_task(handle.wait_for_completion(timeout=SOON))
        await asyncio.sleep(0)

        engine.hub.stop()
        await asyncio.sleep(0)
        engine.hub.start()
        await engine.start_worker(hello)

        assert await waiting == Greeting("Hello")


async def test_a_question_that_nobody_answers_does_not_end_the_wait() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client(timeout=0.02, listen=False)
        handle = await greet.enqueue(client, "Ada")
        waiting = asyncio.create_task(handle.wait_for_completion(timeout=SOON))
        await eventually(lambda: questions_about(engine, handle.id))
        await eventually(lambda: not questions_about(engine, handle.id))

        client.connection.questions.timeout = SOON
        await engine.start_orchestrator()
        await engine.start_worker(hello)

        assert await waiting == Greeting("Hello")


async def test_an_orchestrator_in_trouble_does_not_end_the_wait() -> None:
    async with an_engine() as engine:
        client = await engine.client(listen=False)
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")
        await eventually(lambda: _all_completed(engine, 1))
        troubles = [QueryFailedError("GetRun", "the store is away")] * 2

        async def ask(run_id: str) -> RunState | None:
            if troubles:
                raise troubles.pop()
            return await client.connection.questions.run(run_id)

        client.connection.listener._ask_run = ask

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")
        assert troubles == []


async def test_another_one_asks_when_the_one_who_asks_for_all_gives_up() -> None:
    async with an_engine() as engine:
        client = await engine.client(listen=False)
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")
        await eventually(lambda: _all_completed(engine, 1))  # Nobody listened: it has to be asked for.
        asked: list[str] = []

        async def hang(run_id: str) -> None:
            asked.append(run_id)
            await asyncio.Event().wait()

        client.connection.listener._ask_run = hang
        first = asyncio.create_task(handle.wait_for_completion())
        await eventually(lambda: asked)
        second = asyncio.create_task(handle.wait_for_completion(timeout=SOON))
        await asyncio.sleep(0)

        client.connection.listener._ask_run = client.connection.questions.run
        first.cancel()

        assert await second == Greeting("Hello")


def test_an_end_from_before_a_retry_does_not_count() -> None:
    def outcome(seconds: int) -> Outcome:
        return Outcome("greet", RunStatus.FAILED, T0 + timedelta(seconds=seconds), None, None)

    interest = Interest("run", stale=False)
    interest.settle(outcome(1))
    assert interest.outcome == outcome(1)

    interest.reopen(outcome(1).at)
    known = []
    for seconds in (1, 2):
        interest.settle(outcome(seconds))
        known.append(interest.outcome)

    assert known == [None, outcome(2)]


async def test_the_end_of_a_dead_letter_that_is_redriven_does_not_count() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await client.connection.listener.start()
        interest = client.connection.listener.interest_in("run", fresh=True)
        ends = [Outcome("greet", RunStatus.DEAD_LETTERED, T0 + timedelta(seconds=n), None, None) for n in (1, 2)]

        interest.settle(ends[0])
        client.connection.listener.reopen("run", T0 + timedelta(seconds=1))
        reopened = interest.outcome
        interest.settle(ends[1])
        client.connection.listener.reopen("run", T0 + timedelta(seconds=1))

        assert reopened is None
        assert interest.outcome == ends[1]


async def test_an_end_that_was_waited_for_is_told_though_the_run_is_opened_again_meanwhile() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        handle = await greet.enqueue(client, "Ada")
        await eventually(lambda: engine.store.load([handle.id]))
        waiting = asyncio.create_task(other.handle(handle.id).wait_for_completion(timeout=SOON))
        await eventually(lambda: other.connection.listener._watchers)
        subscription = other.connection.listener._subscription
        assert subscription is not None

        async def unwatch(run_id: str) -> None:
            other.connection.listener.reopen(run_id, engine.clock.now())

        subscription.unwatch = unwatch  # type: ignore[method-assign]  # of this subscription alone
        await engine.start_worker(hello)

        assert await waiting == {"text": "Hello"}


async def test_a_wait_is_bounded_and_the_run_goes_on() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handle = await greet.enqueue(client, "Ada")

        with pytest.raises(CompletionTimeoutError, match="goes on"):
            await handle.wait_for_completion(timeout=0.01)

        await engine.start_worker(hello)
        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_a_run_that_is_not_there_is_not_found() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handle = client.handle("nobody")

        with pytest.raises(RunNotFoundError):
            await handle.status()
        with pytest.raises(RunNotFoundError):
            await handle.wait_for_completion(timeout=SOON)
        with pytest.raises(RunNotFoundError):
            await handle.cancel()
        with pytest.raises(RunNotFoundError):
            await handle.send("go")
        with pytest.raises(RunNotFoundError):
            await handle.journal()


async def test_a_run_of_ours_that_is_not_stored_yet_counts_as_queued_and_can_be_waited_for() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        client.connection.listener._ask_run = client.connection.questions.run
        handle = client.connection.handle("not-stored", decode=lambda payload: payload, own=True)

        assert await handle.status() is RunStatus.QUEUED
        with pytest.raises(CompletionTimeoutError):
            await handle.wait_for_completion(timeout=0.05)


async def test_what_is_said_to_a_run_arrives() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        paused = await greet.with_options(confirm="stored").enqueue(client, "Ada")

        await paused.pause()
        await eventually(lambda: _has_status(paused, RunStatus.PAUSED))
        await paused.resume()
        await eventually(lambda: _has_status(paused, RunStatus.QUEUED))
        await paused.send("hint", Greeting("psst"))

        async def signal_is_there() -> bool:
            return any(item.payload == '{"text":"psst"}' for item in (await paused.get()).inbox)

        await eventually(signal_is_there)
        await paused.cancel()
        with pytest.raises(RunCancelledError):
            await paused.wait_for_completion(timeout=SOON)


async def test_a_sleeping_start_can_be_woken() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(hello)
        handle = await greet.with_options(delay=3600, confirm="stored").enqueue(client, "Ada")
        assert await handle.status() is RunStatus.SCHEDULED

        await handle.wake()

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_a_signal_that_cannot_be_written_is_refused_before_it_is_sent() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()
        handle = await greet.enqueue(client, "Ada")

        with pytest.raises(PayloadError, match="signal 'go'"):
            await handle.send("go", object())


async def test_what_is_said_without_an_orchestrator_waits_for_one() -> None:
    async with an_engine(orchestrator=False) as engine:
        client, other = await engine.client(), await engine.client(timeout=0.05)
        handle = await greet.enqueue(client, "Ada")

        await other.handle(handle.id).cancel()
        await engine.start_orchestrator()

        with pytest.raises(RunCancelledError):
            await handle.wait_for_completion(timeout=SOON)


async def test_what_cannot_be_said_in_time_is_a_certain_error() -> None:
    async with an_engine() as engine:
        client = await engine.client(timeout=0.05)
        handle = await greet.enqueue(client, "Ada")
        engine.hub.stop()

        with pytest.raises(EnqueueTimeoutError, match="the cancellation of run") as caught:
            await handle.cancel()

        assert caught.value.certain
        engine.hub.start()


async def test_a_failed_run_that_is_retried_is_waited_for_anew() -> None:
    outcomes: list[Payload | Failure] = [failing(None), hello(None)]

    def answer(_command: ExecuteRun) -> Payload | Failure:
        return outcomes.pop(0)

    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(answer)
        handle = await greet.enqueue(client, "Ada")
        with pytest.raises(RunFailedError):
            await handle.wait_for_completion(timeout=SOON)

        await handle.retry()

        assert await handle.wait_for_completion(timeout=SOON) == Greeting("Hello")


async def test_only_what_failed_can_be_retried() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handle = await greet.with_options(confirm="stored").enqueue(client, "Ada")

        with pytest.raises(RunNotRetryableError, match="queued"):
            await handle.retry()

        await engine.start_worker(hello)
        await handle.wait_for_completion(timeout=SOON)
        with pytest.raises(RunNotRetryableError, match="completed"):
            await handle.retry()


async def test_a_run_can_be_followed_until_it_is_over() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        go = asyncio.Event()
        await engine.start_worker(hello, go=go)
        handle = await greet.enqueue(client, "Ada")
        statuses: list[RunStatus] = []

        async with asyncio.timeout(SOON):
            async for run in handle.watch():
                statuses.append(run.status)
                go.set()

        assert statuses[0] is RunStatus.QUEUED
        assert statuses[-1] is RunStatus.COMPLETED


async def test_the_journal_is_read_to_its_end() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(hello)
        handle = await greet.enqueue(client, "Ada")
        await handle.wait_for_completion(timeout=SOON)

        assert await handle.journal() == ()


def _counting(client: Client, asked: list[str]):  # type: ignore[no-untyped-def]
    async def ask(run_id: str):  # type: ignore[no-untyped-def]
        asked.append(run_id)
        return await client.connection.questions.run(run_id)

    return ask


async def _all_completed(engine: Engine, number: int) -> bool:
    return (await engine.store.count()).get("greet", {}).get("completed") == number


async def _has_status(handle, status: RunStatus) -> bool:  # type: ignore[no-untyped-def]
    return await handle.status() is status
