"""Workers on a whole engine in memory: what they take, what they let go of, and what they say."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.commands import ExecuteRun, NotifyWorker, WorkerNotice
from aiki.engine.events import RunOrphaned, RunStarted
from aiki.engine.ids import partition_of
from aiki.engine.state import Pair
from aiki.engine.status import RunStatus
from aiki.errors import ClientClosedError, ConfigurationError, DuplicateNameError, RunFailedError, RunTimeoutError
from aiki.sdk.client import Client
from aiki.sdk.run import Run
from aiki.sdk.task import Task, task
from aiki.sdk.workflow import Workflow, workflow
from aiki.worker.service import Worker
from tests.sdk.support import SOON, Engine, an_engine, eventually, published


class Shop:
    """Workflows and tasks of one test, and what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.open = asyncio.Event()
        """What is held waits for this."""
        self.begun = 0
        self.stopped = 0

        @task
        async def step(name: str) -> str:
            self.done.append(name)
            return name

        @task
        async def held(name: str) -> str:
            self.begun += 1
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.stopped += 1
                raise
            self.done.append(name)
            return name

        @task
        def in_a_thread() -> bool:
            return threading.current_thread() is threading.main_thread()

        @workflow(name="steps")
        async def steps(run: Run, name: str) -> list[str]:
            return [await step.run(run, f"{name}-{number}") for number in (1, 2)]

        @workflow(name="holding")
        async def holding(run: Run, name: str) -> list[str]:
            return [
                await step.run(run, f"{name}-1"),
                await held.run(run, f"{name}-2"),
                await step.run(run, f"{name}-3"),
            ]

        @workflow(name="threaded")
        async def threaded(run: Run) -> bool:
            return await in_a_thread.run(run)

        self.steps = steps
        self.holding = holding
        self.threaded = threaded


@asynccontextmanager
async def a_worker(engine: Engine, *workflows: Workflow[..., Any], **options: Any) -> AsyncIterator[Worker]:
    """Run a worker with a connection of its own, as another process would."""
    client = await engine.client(listen=False)
    async with Worker(client, workflows=workflows, **options) as worker:
        yield worker


def cut_off(engine: Engine, worker: Worker) -> None:
    engine.hub.disconnect(worker._surroundings.broker)  # type: ignore[arg-type]


@contextmanager
def isolated(engine: Engine, worker: Worker) -> Iterator[None]:
    """Keep the worker from its broker meanwhile."""
    broker = worker._surroundings.broker
    assert isinstance(broker, MemoryBroker)
    engine.hub.isolate(broker)
    yield
    engine.hub.rejoin(broker)


def calling(called: Task[[], str]) -> Workflow[[], str]:
    """Make a workflow that does nothing but await one task."""

    @workflow(name="drawing")
    async def drawing(run: Run) -> str:
        return await called.run(run)

    return drawing


async def a_command(engine: Engine, client: Client, target: Workflow[..., Any], *arguments: Any) -> ExecuteRun:
    """Have a run dispatched and take its command, as a worker that is about to die."""
    handle = await target.enqueue(client, *arguments)
    broker = await engine.connected()
    subscription = await broker.consume_commands([target.queue], prefetch=1)
    (delivery,) = await asyncio.wait_for(subscription.receive(), SOON)
    assert isinstance(delivery.body, ExecuteRun)
    assert delivery.body.run_id == handle.id
    await subscription.close()
    return delivery.body


async def test_a_run_is_executed_from_its_request_to_its_result() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.steps):
        client = await engine.client()

        handle = await shop.steps.enqueue(client, "a")

        assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]
        assert [entry.kind for entry in await handle.journal()] == ["task_completed"] * 2


async def test_hundreds_of_runs_are_executed_side_by_side() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.steps):
        client = await engine.client()

        handles = await shop.steps.enqueue_many(client, [f"{n}" for n in range(300)])
        results = await asyncio.gather(*(handle.wait_for_completion(timeout=30) for handle in handles))

        assert results == [[f"{n}-1", f"{n}-2"] for n in range(300)]
        assert len(shop.done) == 600


async def test_a_worker_serves_exactly_the_queues_of_what_it_has() -> None:
    shop = Shop()

    @task(queue="gpu")
    async def render() -> None: ...

    async with an_engine() as engine:
        client = await engine.client()

        assert Worker(client, [shop.steps, shop.holding], [render]).queues == ("steps@1.0.0", "holding@1.0.0", "gpu")
        assert Worker(client, [shop.steps], queues=["other@1.0.0"]).queues == ("other@1.0.0",)


async def test_two_versions_run_side_by_side_and_each_run_stays_with_its_own() -> None:
    @workflow(name="greet", version="1.0.0")
    async def old(run: Run) -> str:
        return "old"

    @workflow(name="greet", version="2.0.0")
    async def new(run: Run) -> str:
        return "new"

    async with an_engine() as engine, a_worker(engine, old, new):
        client = await engine.client()

        handles = [await old.enqueue(client), await new.enqueue(client), await old.enqueue(client)]

        assert [await handle.wait_for_completion(timeout=SOON) for handle in handles] == ["old", "new", "old"]


async def test_what_is_added_to_the_registry_is_served_from_then_on() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        held = await shop.holding.enqueue(client, "a")
        await eventually(lambda: shop.begun)
        handle = await shop.steps.enqueue(client, "b")

        worker.registry.add(shop.steps)

        assert await handle.wait_for_completion(timeout=SOON) == ["b-1", "b-2"]
        shop.open.set()
        assert await held.wait_for_completion(timeout=SOON) == ["a-1", "a-2", "a-3"]


async def test_section_4_a_redelivered_run_is_not_executed_but_reported() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        command = await a_command(engine, client, shop.steps, "a")
        observer = await engine.connected()
        await engine.stop_orchestrator()

        async with a_worker(engine, shop.steps):
            await eventually(lambda: published(engine))
            await eventually(lambda: not engine.hub.held("steps@1.0.0"))

            (event,) = published(engine)
            assert (event.type, event.run_id) == ("RunOrphaned", command.run_id)
            assert getattr(event, "pair", None) == command.pair
            assert shop.done == []
        assert observer.is_connected


async def test_a_run_whose_worker_died_goes_on_at_once_on_another_one() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        command = await a_command(engine, client, shop.steps, "a")

        async with a_worker(engine, shop.steps):
            handle = client.handle(command.run_id, shop.steps)
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]
            assert (await handle.get()).pair.epoch == command.pair.epoch + 1


async def test_rule_1_that_a_run_was_started_is_said_before_anything_else_of_it() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        handle = await shop.steps.enqueue(client, "a")
        await eventually(lambda: engine.hub.ready("steps@1.0.0"))
        await engine.stop_orchestrator()

        async with a_worker(engine, shop.steps):
            await eventually(lambda: "RunCompleted" in [event.type for event in published(engine)])

        said = [event.type for event in published(engine) if event.run_id == handle.id]
        assert said == ["RunStarted", "JournalAppended", "JournalAppended", "RunCompleted"]


async def test_a_command_is_acknowledged_only_when_the_end_of_its_run_is_confirmed() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding):
        client = await engine.client()
        handle = await shop.holding.enqueue(client, "a")
        await eventually(lambda: shop.begun)
        assert engine.hub.held("holding@1.0.0") == 1

        shop.open.set()
        await handle.wait_for_completion(timeout=SOON)

        await eventually(lambda: engine.hub.held("holding@1.0.0") == 0)


async def test_a_worker_that_loses_its_connection_lets_go_at_once_and_nothing_recorded_runs_again() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        handles = [await shop.holding.enqueue(client, name) for name in ("a", "b")]
        await eventually(lambda: shop.begun == 2)

        cut_off(engine, worker)
        await eventually(lambda: shop.begun == 4)  # Under new epochs, from where they were.
        shop.open.set()

        results = [await handle.wait_for_completion(timeout=SOON) for handle in handles]
        assert results == [["a-1", "a-2", "a-3"], ["b-1", "b-2", "b-3"]]
        assert sorted(shop.done) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
        assert (await handles[0].get()).recoveries == 0


async def test_what_the_broker_lost_with_the_connection_of_its_holder_is_asked_for_by_the_holder() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        handle = await shop.holding.enqueue(client, "a")
        await eventually(lambda: shop.begun)

        with isolated(engine, worker):
            await eventually(lambda: not worker.held_runs)
            engine.hub.commands(shop.holding.queue).clear()
        shop.open.set()

        assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2", "a-3"]


async def a_question(engine: Engine, client: Client, worker: Worker, run_id: str) -> None:
    """Ask *worker* whether it holds the current dispatch of a run."""
    run = await client.get(run_id)
    question = NotifyWorker(
        worker=worker.name,
        run_id=run_id,
        pair=run.pair,
        notice=WorkerNotice.DOUBTED,
        incarnation=run.incarnation,
    )
    await (await engine.connected()).send((question,), timeout=SOON)


async def is_running(client: Client, run_id: str) -> bool:
    return (await client.get(run_id)).status is RunStatus.RUNNING


async def test_a_worker_that_is_asked_goes_on_with_what_it_holds_and_says_what_it_does_not_hold() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        lost = await shop.holding.enqueue(client, "a")
        broker, order = await an_order_taken(engine, shop.holding.queue)
        async with a_worker(engine, shop.holding) as worker:
            started = RunStarted(
                id="started",
                run_id=order.run_id,
                at=order.now,
                incarnation=order.incarnation,
                pair=order.pair,
                worker=worker.name,
            )
            await broker.publish_events(partition_of(lost.id, broker.partitions), (started,), timeout=SOON)
            held = await shop.holding.enqueue(client, "b")
            for handle in (lost, held):
                await eventually(partial(is_running, client, handle.id))

            await a_question(engine, client, worker, held.id)
            await a_question(engine, client, worker, lost.id)

            await eventually(lambda: shop.begun == 2)
            shop.open.set()
            assert await lost.wait_for_completion(timeout=SOON) == ["a-1", "a-2", "a-3"]
            assert await held.wait_for_completion(timeout=SOON) == ["b-1", "b-2", "b-3"]
            assert shop.stopped == 0
            assert ((await lost.get()).pair.epoch, (await held.get()).pair.epoch) == (2, 1)


async def test_a_worker_that_is_cut_off_stops_what_it_executes_though_nobody_tells_it_to() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        await shop.holding.enqueue(client, "a")
        await eventually(lambda: shop.begun)

        with isolated(engine, worker):
            await eventually(lambda: not worker.held_runs)
            assert shop.stopped == 1
            assert len(engine.hub.ready("holding@1.0.0")) == 1
        shop.open.set()


async def test_rule_3_a_fenced_run_stops_and_records_nothing_more() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        handle = await shop.holding.with_options(timeout=0.2, confirm="stored").enqueue(client, "a")
        await eventually(lambda: shop.begun)

        # The run's time is over: it fails, and its holder is fenced off.
        with pytest.raises(RunTimeoutError, match="ran out of time"):
            await handle.wait_for_completion(timeout=SOON)

        await eventually(lambda: not worker.held_runs)
        await eventually(lambda: not engine.hub.held("holding@1.0.0"))
        shop.open.set()
        assert shop.done == ["a-1"]
        assert len(await handle.journal()) == 1


async def test_rule_1_an_order_that_arrives_after_the_one_that_replaced_it_disturbs_nobody() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        # Its first holder dies, so that it is dispatched anew.
        late = await a_command(engine, client, shop.holding, "a")
        async with a_worker(engine, shop.holding):
            await eventually(lambda: shop.begun)
            assert (await client.get(late.run_id)).pair.epoch > late.pair.epoch
            orchestrator = await engine.connected()

            await orchestrator.send((late,), timeout=SOON)

            await eventually(lambda: not engine.hub.ready("holding@1.0.0") and engine.hub.held("holding@1.0.0") == 1)
            shop.open.set()
            result = await client.handle(late.run_id).wait_for_completion(timeout=SOON)

    assert result == ["a-1", "a-2", "a-3"]
    assert shop.begun == 1
    assert not shop.stopped


async def an_order_taken(engine: Engine, queue: str) -> tuple[MemoryBroker, ExecuteRun]:
    """Take the next order out of *queue*, to send it again at will."""
    broker = await engine.connected()
    subscription = await broker.consume_commands([queue], prefetch=1)
    (delivery,) = await asyncio.wait_for(subscription.receive(), SOON)
    assert isinstance(delivery.body, ExecuteRun)
    await subscription.acknowledge([delivery])
    await subscription.close()
    return broker, delivery.body


async def test_rule_1_an_order_that_is_said_twice_to_one_worker_is_followed_once() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        handle = await shop.holding.enqueue(client, "a")
        broker, order = await an_order_taken(engine, shop.holding.queue)

        await broker.send((order, order), timeout=SOON)
        async with a_worker(engine, shop.holding):
            await eventually(lambda: shop.begun)
            await eventually(lambda: not engine.hub.ready(shop.holding.queue))
            await eventually(lambda: engine.hub.held(shop.holding.queue) == 1)
            shop.open.set()
            result = await handle.wait_for_completion(timeout=SOON)

    assert result == ["a-1", "a-2", "a-3"]
    assert shop.begun == 1
    assert not shop.stopped


async def test_a_store_that_was_put_back_gets_its_run_executed_though_a_later_dispatch_of_it_is_held() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()
        handle = await shop.steps.enqueue(client, "a")
        broker, order = await an_order_taken(engine, shop.steps.queue)

        # The first is of a time that the store has forgotten; the second one has a lower number.
        await broker.send((replace(order, pair=Pair(order.pair.epoch + 5, "forgotten")), order), timeout=SOON)
        async with a_worker(engine, shop.steps):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_a_cancellation_reaches_the_workflow_and_its_task() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding) as worker:
        client = await engine.client()
        handle = await shop.holding.enqueue(client, "a")
        await eventually(lambda: shop.begun)

        await handle.cancel()

        with pytest.raises(Exception, match="was cancelled"):
            await handle.wait_for_completion(timeout=SOON)
        await eventually(lambda: not worker.held_runs)
        assert shop.done == ["a-1"]


async def test_a_signal_reaches_a_run_that_is_held() -> None:
    begun = asyncio.Event()

    @task
    async def ready() -> None:
        begun.set()

    @workflow
    async def waiting(run: Run) -> str:
        await ready.run(run)
        return await run.wait_for_signal("word", str)

    async with an_engine() as engine, a_worker(engine, waiting):
        client = await engine.client()
        handle = await waiting.enqueue(client)
        await asyncio.wait_for(begun.wait(), SOON)

        await handle.send("word", "yes")

        assert await handle.wait_for_completion(timeout=SOON) == "yes"


async def test_no_more_runs_execute_than_there_are_slots() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.holding, max_concurrent_runs=3) as worker:
        client = await engine.client()
        handles = await shop.holding.enqueue_many(client, [f"{n}" for n in range(10)])
        await eventually(lambda: shop.begun == 3)
        await eventually(lambda: len(engine.hub.ready("holding@1.0.0")) == 7)
        assert len(worker.held_runs) == 3

        shop.open.set()

        await asyncio.gather(*(handle.wait_for_completion(timeout=SOON) for handle in handles))


async def test_plain_functions_run_in_threads() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.threaded):
        client = await engine.client()

        assert await (await shop.threaded.enqueue(client)).wait_for_completion(timeout=SOON) is False


async def test_a_run_of_an_unknown_workflow_fails_with_a_letter_and_the_next_one_is_executed() -> None:
    shop = Shop()

    @workflow(name="gone")
    async def gone(run: Run) -> None: ...

    async with an_engine() as engine, a_worker(engine, shop.steps, queues=["gone@1.0.0", "steps@1.0.0"]):
        client = await engine.client()
        lost, good = await gone.enqueue(client), await shop.steps.enqueue(client, "a")

        with pytest.raises(RunFailedError, match=r"no workflow 'gone@1\.0\.0'"):
            await lost.wait_for_completion(timeout=SOON)
        assert await good.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]

        async def a_letter_is_there() -> bool:
            return bool((await client.dead_letters()).letters)

        await eventually(a_letter_is_there)
        (stored,) = (await client.dead_letters()).letters
        assert (stored.letter.run_id, stored.letter.reason) == (lost.id, "unknown workflow")


async def test_rubbish_in_a_queue_becomes_a_letter_and_the_next_run_is_executed() -> None:
    shop = Shop()
    async with an_engine() as engine, a_worker(engine, shop.steps):
        client = await engine.client()
        engine.hub.inject("steps@1.0.0", b"\xff{")

        handle = await shop.steps.enqueue(client, "a")

        assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_a_task_with_a_queue_is_executed_by_the_workers_of_that_queue() -> None:
    places: list[str] = []

    @task(queue="gpu")
    async def render(name: str) -> str:
        places.append(name)
        return f"{name}.png"

    @workflow
    async def drawing(run: Run) -> str:
        return await render.run(run, "cat")

    async with an_engine() as engine, a_worker(engine, drawing):
        client = await engine.client()
        handle = await drawing.enqueue(client)
        await eventually(lambda: engine.hub.ready("gpu"))
        assert places == []

        async with a_worker(engine, tasks=[render]) as renderer:
            assert renderer.queues == ("gpu",)
            assert await handle.wait_for_completion(timeout=SOON) == "cat.png"
            await eventually(lambda: not engine.hub.held("gpu"))


async def test_a_remote_task_whose_worker_died_is_executed_again() -> None:
    begun = asyncio.Event()
    tries: list[int] = []

    @task(queue="gpu")
    async def render() -> str:
        tries.append(1)
        if len(tries) == 1:
            begun.set()
            await asyncio.Event().wait()
        return "done"

    drawing = calling(render)

    async with an_engine() as engine, a_worker(engine, drawing), a_worker(engine, tasks=[render]) as renderer:
        client = await engine.client()
        handle = await drawing.enqueue(client)
        await asyncio.wait_for(begun.wait(), SOON)

        cut_off(engine, renderer)

        assert await handle.wait_for_completion(timeout=SOON) == "done"
        assert len(tries) == 2


async def test_a_worker_that_stops_ends_its_task_though_its_order_went_with_the_connection() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @task(queue="gpu")
    async def render() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    drawing = calling(render)

    async with an_engine() as engine, a_worker(engine, drawing), a_worker(engine, tasks=[render]) as renderer:
        client = await engine.client()
        handle = await drawing.enqueue(client)
        await asyncio.wait_for(begun.wait(), SOON)
        stopping = asyncio.create_task(renderer.stop(grace=SOON))
        await eventually(lambda: renderer._crew._is_leaving)

        cut_off(engine, renderer)
        await eventually(lambda: engine.hub.ready("gpu"))
        engine.hub.commands("gpu").clear()
        go_on.set()

        assert await handle.wait_for_completion(timeout=SOON) == "done"
        await stopping


async def test_a_remote_task_that_nobody_knows_fails_with_a_clear_error() -> None:
    @task(name="render", queue="gpu")
    async def render() -> None: ...

    @workflow
    async def drawing(run: Run) -> None:
        await render.run(run)

    @task(name="other", queue="gpu")
    async def other() -> None: ...

    async with an_engine() as engine, a_worker(engine, drawing), a_worker(engine, tasks=[other]):
        client = await engine.client()

        with pytest.raises(RunFailedError, match="no task 'render'"):
            await (await drawing.enqueue(client)).wait_for_completion(timeout=SOON)


async def test_rule_4_a_run_under_suspicion_executes_with_nothing_beside_it() -> None:
    shop = Shop()

    @task
    async def suspicious() -> None:
        shop.done.append("suspicious")

    @workflow(name="suspect")
    async def suspect(run: Run) -> None:
        await suspicious.run(run)

    async with an_engine() as engine:
        client = await engine.client()
        handle = await suspect.with_options(recoveries_max=0).enqueue(client)
        async with a_worker(engine, shop.holding, shop.steps) as worker:
            earlier = await shop.holding.enqueue(client, "earlier")
            await eventually(lambda: shop.begun)
            command = await _lose_worker(engine, client, suspect, handle.id)
            assert command.alone

            worker.registry.add(suspect)
            await eventually(lambda: handle.id in worker.held_runs)
            later = await shop.steps.enqueue(client, "later")
            await eventually(lambda: later.id in worker.held_runs)
            shop.open.set()
            await asyncio.gather(*(each.wait_for_completion(timeout=SOON) for each in (handle, earlier, later)))

        assert shop.done == ["earlier-1", "earlier-2", "earlier-3", "suspicious", "later-1", "later-2"]


async def _lose_worker(engine: Engine, client: Client, target: Workflow[..., Any], run_id: str) -> ExecuteRun:
    """Let a worker take a run, say that it started it, and die; tell the command that follows, given back unread."""
    broker = await engine.connected()
    subscription = await broker.consume_commands([target.queue], prefetch=1)
    (first,) = await asyncio.wait_for(subscription.receive(), SOON)
    assert isinstance(first.body, ExecuteRun)
    facts: dict[str, Any] = {
        "run_id": run_id,
        "at": first.body.now,
        "incarnation": first.body.incarnation,
        "pair": first.body.pair,
    }
    events = (
        RunStarted(**facts, id="started", worker="dead"),
        RunOrphaned(**facts, id="orphaned", worker="other"),
    )
    await broker.publish_events(partition_of(run_id, broker.partitions), events, timeout=SOON)
    await subscription.acknowledge([first])
    (second,) = await asyncio.wait_for(subscription.receive(), SOON)
    assert isinstance(second.body, ExecuteRun)
    # A fresh copy for the next worker: this one was read, and would come back flagged.
    await subscription.stop()
    await subscription.acknowledge([second])
    await subscription.close()
    await broker.send([second.body], timeout=SOON)
    return second.body


async def test_presence_is_reported_while_the_worker_is_there() -> None:
    shop = Shop()
    async with an_engine() as engine:
        client = await engine.client()

        async def workers() -> list[str]:
            return [str(each["queues"]) for each in (await client.stats()).workers]

        async with a_worker(engine, shop.steps):
            await eventually(workers)
            assert "steps@1.0.0" in (await workers())[0]

        assert await workers() == []


async def test_a_worker_that_cannot_work_says_why() -> None:
    shop = Shop()

    @workflow(name="steps")
    async def another(run: Run) -> None: ...

    async with an_engine() as engine:
        client = await engine.client()

        with pytest.raises(ConfigurationError, match="nothing to serve"):
            await Worker(client).start()
        with pytest.raises(ConfigurationError, match="max_concurrent_runs"):
            Worker(client, [shop.steps], max_concurrent_runs=0)
        with pytest.raises(DuplicateNameError):
            Worker(client, [shop.steps, another])
        worker = Worker(client, [shop.steps])
        with pytest.raises(ClientClosedError):
            await worker.run_until_stopped()
        async with worker:
            with pytest.raises(ConfigurationError, match="started before"):
                await worker.start()
        await client.close()
        with pytest.raises(ClientClosedError):
            await Worker(client, [shop.steps]).start()
