"""Clients: what they state is confirmed, counts once, and says clearly when it did not come about."""

import asyncio
from datetime import timedelta

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.commands import DeadLetter
from aiki.engine.events import RunRequested
from aiki.engine.ids import run_id_for_key
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload, dump_payload
from aiki.engine.queries import RunFilter
from aiki.engine.status import RunStatus
from aiki.errors import (
    AcceptanceTimeoutError,
    BatchNotEnqueuedError,
    BrokerUnavailableError,
    ClientClosedError,
    DeadLetterNotFoundError,
    EnqueueTimeoutError,
    IdempotencyConflictError,
    InvalidNameError,
    InvalidOptionError,
    PayloadError,
    QueryFailedError,
    QueryTimeoutError,
    RunNotFoundError,
)
from aiki.sdk.client import Client
from aiki.sdk.options import WorkflowOptions
from aiki.sdk.run import Run
from aiki.sdk.workflow import workflow
from aiki.testing.builders import T0
from tests.sdk.support import QUEUE, SOON, Engine, an_engine, eventually, published


@workflow
async def greet(run: Run, name: str) -> str:
    return f"Hello {name}"


def hello(_command: object) -> Payload:
    return dump_payload("Hello")


async def forget_what_ended(engine: Engine) -> None:
    """Let the retention of all runs be over."""
    await eventually(lambda: engine.store.expire(now=engine.clock.now() + timedelta(days=1), limit=10))


def requests(engine: Engine) -> list[RunRequested]:
    return [event for event in published(engine) if isinstance(event, RunRequested)]


async def test_a_run_that_was_enqueued_is_with_the_broker() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        handle = await greet.enqueue(client, "Ada")

        (request,) = requests(engine)
        assert (request.run_id, request.queue, request.input) == (handle.id, QUEUE, '{"name":"Ada"}')


async def test_a_run_gets_its_options() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()
        patient = greet.with_options(delay=60, timeout=120, tags=["vip"], retention=5, priority=3, recoveries_max=7)

        await patient.enqueue(client, "Ada")

        (request,) = requests(engine)
        assert request.start_at is not None
        assert request.timeout_at is not None
        assert (request.start_at - request.at).total_seconds() == 60
        assert (request.timeout_at - request.start_at).total_seconds() == 120
        assert (request.tags, request.retention, request.priority) == (("vip",), 5.0, 3)
        assert request.recoveries_max == 7


async def test_many_runs_travel_in_few_messages() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        handles = await greet.enqueue_many(client, [f"{n}" for n in range(2_000)])

        messages = sum(len(engine.hub.ready(f"aiki.events.{number}")) for number in range(engine.hub.partitions))
        assert len({handle.id for handle in handles}) == 2_000
        assert {request.run_id for request in requests(engine)} == {handle.id for handle in handles}
        assert messages <= engine.hub.partitions * 2


async def test_many_runs_cannot_share_a_key() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        with pytest.raises(InvalidOptionError, match="idempotency_key"):
            await client.enqueue_workflows(greet, [Payload("{}")], WorkflowOptions(idempotency_key="k"))


async def test_a_workflow_that_is_known_by_name_only_can_be_enqueued() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(hello)

        handle = await client.enqueue("greet", {"name": "Ada"}, version="1.0.0")

        assert await handle.wait_for_completion(timeout=SOON) == "Hello"


async def test_wrong_names_and_arguments_are_refused_before_anything_is_sent() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        with pytest.raises(InvalidNameError):
            await client.enqueue("no.dots", version="1.0.0")
        with pytest.raises(InvalidNameError):
            await client.enqueue("greet", version="1 0")
        with pytest.raises(PayloadError):
            await client.enqueue("greet", {"name": object()}, version="1.0.0")

        assert requests(engine) == []


async def test_the_broker_being_away_gives_a_certain_error_and_nothing_half_done() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client(timeout=0.05)
        engine.hub.stop()

        with pytest.raises(EnqueueTimeoutError, match="nothing was sent") as caught:
            await greet.enqueue(client, "Ada")

        assert caught.value.certain
        engine.hub.start()
        await client.connection.publisher.close()
        assert requests(engine) == []


async def test_a_short_outage_is_waited_out() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()
        engine.hub.stop()
        enqueueing = asyncio.create_task(greet.enqueue(client, "Ada"))
        await asyncio.sleep(0)

        engine.hub.start()

        handle = await asyncio.wait_for(enqueueing, SOON)
        assert [request.run_id for request in requests(engine)] == [handle.id]


async def test_many_runs_that_were_not_confirmed_say_so_together() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client(timeout=0.05)
        engine.hub.stop()

        with pytest.raises(BatchNotEnqueuedError, match="3 of 3 runs were not confirmed") as caught:
            await greet.enqueue_many(client, ["a", "b", "c"])

        assert caught.value.certain


async def test_stored_means_that_an_orchestrator_has_it() -> None:
    async with an_engine() as engine:
        client = await engine.client()

        handle = await greet.with_options(confirm="stored").enqueue(client, "Ada")

        assert (await engine.store.load([handle.id])).keys() == {handle.id}


async def test_without_an_orchestrator_stored_is_not_said_and_the_error_tells_that_the_run_is_safe() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()

        with pytest.raises(AcceptanceTimeoutError, match="safe in the broker") as caught:
            await client.enqueue_workflow(
                greet, Payload('{"name":"Ada"}'), WorkflowOptions(confirm="stored"), timeout=0.05
            )

        assert [request.run_id for request in requests(engine)] == [caught.value.run_id]


async def test_rule_17_the_same_key_from_ten_clients_is_one_run_with_one_result() -> None:
    async with an_engine() as engine:
        clients = [await engine.client() for _ in range(10)]
        await engine.start_worker(hello)
        keyed = greet.with_options(idempotency_key="order-7")

        handles = await asyncio.gather(*(keyed.enqueue(client, "Ada") for client in clients))
        results = await asyncio.gather(*(handle.wait_for_completion(timeout=SOON) for handle in handles))

        assert {handle.id for handle in handles} == {run_id_for_key("greet", "order-7")}
        assert results == ["Hello"] * 10
        assert len(engine.runs_executed) == 1


async def test_the_same_key_with_another_input_shows_both_hashes() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        keyed = greet.with_options(idempotency_key="order-7")
        first = await keyed.enqueue(client, "Ada")

        with pytest.raises(IdempotencyConflictError) as caught:
            await keyed.enqueue(other, "Grace")

        stored = (await engine.store.load([first.id]))[first.id]
        assert caught.value.existing_hash == stored.input_hash
        assert caught.value.input_hash != stored.input_hash
        assert caught.value.existing_hash in str(caught.value)
        assert caught.value.input_hash in str(caught.value)


async def test_the_same_key_with_another_input_gives_the_existing_run_if_so_asked() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        keyed = greet.with_options(idempotency_key="order-7", on_conflict="use_existing")
        first = await keyed.enqueue(client, "Ada")

        second = await keyed.enqueue(other, "Grace")
        waiting = asyncio.create_task(second.wait_for_completion(timeout=SOON))
        await eventually(lambda: other.connection.listener._watchers)  # Its outcome is not addressed to this client.
        await engine.start_worker(hello)

        assert second.id == first.id
        assert await waiting == "Hello"


async def test_a_key_whose_run_is_over_gives_its_result() -> None:
    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        await engine.start_worker(hello)
        keyed = greet.with_options(idempotency_key="order-7")
        await (await keyed.enqueue(client, "Ada")).wait_for_completion(timeout=SOON)

        again = await keyed.enqueue(other, "Ada")

        assert await again.wait_for_completion(timeout=SOON) == "Hello"
        assert len(engine.runs_executed) == 1


async def test_rule_16_a_key_that_is_used_again_gives_the_result_of_the_new_run() -> None:
    results = [dump_payload("first"), dump_payload("second")]

    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(lambda command: results.pop(0))
        keyed = greet.with_options(idempotency_key="order-7", retention=1)
        first = await keyed.enqueue(client, "Ada")
        await first.wait_for_completion(timeout=SOON)
        await forget_what_ended(engine)

        second = await keyed.enqueue(client, "Ada")

        assert second.id == first.id
        assert await second.wait_for_completion(timeout=SOON) == "second"


async def test_rule_16_a_key_that_somebody_else_used_again_gives_the_result_of_the_new_run() -> None:
    results = [dump_payload("first"), dump_payload("second")]

    async with an_engine() as engine:
        client, other = await engine.client(), await engine.client()
        await engine.start_worker(lambda command: results.pop(0))
        keyed = greet.with_options(idempotency_key="order-7", retention=1)
        first = await keyed.enqueue(client, "Ada")
        await first.wait_for_completion(timeout=SOON)
        await forget_what_ended(engine)
        await (await keyed.enqueue(other, "Ada")).wait_for_completion(timeout=SOON)

        second = await keyed.enqueue(client, "Ada")

        assert second.id == first.id
        assert await second.wait_for_completion(timeout=SOON) == "second"


async def test_an_answer_that_was_lost_with_the_connection_is_asked_for() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()
        enqueueing = asyncio.create_task(greet.with_options(confirm="stored").enqueue(client, "Ada"))
        await eventually(lambda: requests(engine))

        engine.hub.isolate(client.connection.broker)  # type: ignore[arg-type]
        await engine.start_orchestrator()
        await eventually(engine.store.count)
        engine.hub.rejoin(client.connection.broker)  # type: ignore[arg-type]

        handle = await asyncio.wait_for(enqueueing, SOON)
        assert await handle.status() is RunStatus.QUEUED


async def test_runs_are_found_listed_and_counted() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        stored = greet.with_options(confirm="stored")
        handles = [await stored.with_options(tags=[name]).enqueue(client, name) for name in ("a", "b", "c")]

        run = await client.get(handles[0].id)
        page = await client.find(limit=2)
        rest = await client.find(limit=2, cursor=page.cursor)
        tagged = await client.find(RunFilter(tag="b"))
        stats = await client.stats()

        assert (run.workflow, run.status) == ("greet", RunStatus.QUEUED)
        assert {each.run_id for each in (*page.runs, *rest.runs)} == {handle.id for handle in handles}
        assert [each.run_id for each in tagged.runs] == [handles[1].id]
        assert stats.runs["greet"]["queued"] == 3


async def test_what_is_not_there_is_said_so() -> None:
    async with an_engine() as engine:
        client = await engine.client()

        with pytest.raises(RunNotFoundError):
            await client.get("nobody")
        with pytest.raises(DeadLetterNotFoundError):
            await client.dead_letter("nobody")
        with pytest.raises(QueryFailedError):
            await client.find(cursor="none of yours")


async def test_a_question_that_nobody_answers_says_what_to_look_for() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client(timeout=0.05)

        with pytest.raises(QueryTimeoutError, match="aiki orchestrator"):
            await client.stats()


async def test_dead_letters_are_listed_redriven_and_discarded() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        broker = await engine.connected()
        for number in range(2):
            letter = DeadLetter(id=f"letter-{number}", reason="broken", at=T0, origin=QUEUE, body="{")
            await broker.park(letter, timeout=SOON)

        async def both_are_stored() -> bool:
            return len((await client.dead_letters()).letters) == 2

        await eventually(both_are_stored)
        page = await client.dead_letters()

        discarded = await client.discard("letter-0")
        redriven = await client.redrive("letter-1")

        assert {each.letter.id for each in page.letters} == {"letter-0", "letter-1"}
        assert (discarded.state, redriven.state) == ("discarded", "redriven")
        assert (await client.dead_letter("letter-0")).state == "discarded"
        assert len((await client.dead_letters(include_done=True)).letters) == 2


async def test_a_client_that_is_not_open_refuses() -> None:
    async with an_engine(orchestrator=False) as engine:
        client = await engine.client()
        await client.close()
        await client.close()

        with pytest.raises(ClientClosedError):
            await greet.enqueue(client, "Ada")
        with pytest.raises(ClientClosedError):
            await client.stats()
        with pytest.raises(ClientClosedError):
            client.handle("run")


async def test_a_client_that_cannot_connect_leaves_nothing_behind() -> None:
    async with an_engine(orchestrator=False) as engine:
        engine.hub.stop()
        client = Client(MemoryBroker(engine.hub), clock=engine.clock)
        before = asyncio.all_tasks()

        with pytest.raises(BrokerUnavailableError):
            async with client:
                pass

        assert asyncio.all_tasks() == before
        engine.hub.start()


async def test_a_wait_ends_when_the_client_is_closed() -> None:
    async with an_engine() as engine:
        client = await engine.client()
        handle = await greet.enqueue(client, "Ada")
        waiting = asyncio.create_task(handle.wait_for_completion())
        await asyncio.sleep(0)

        await client.close()

        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(waiting, SOON)


async def test_a_failure_has_what_was_recorded() -> None:
    failure = Failure(type="ValueError", message="no such name", traceback="File …")
    async with an_engine() as engine:
        client = await engine.client()
        await engine.start_worker(lambda _command: failure)
        handle = await greet.enqueue(client, "Ada")

        with pytest.raises(Exception, match="ValueError: no such name") as caught:
            await handle.wait_for_completion(timeout=SOON)

        assert getattr(caught.value, "failure", None) == failure


def test_the_name_of_a_client_is_a_word_of_a_routing_key() -> None:
    async def name_of(given: str | None) -> str:
        async with an_engine(orchestrator=False) as engine:
            return Client(await engine.connected(), clock=engine.clock, name=given).name

    assert asyncio.run(name_of("My app. On *host*#")).startswith("My-app-On-host-")
    assert asyncio.run(name_of(None)) != asyncio.run(name_of(None))
