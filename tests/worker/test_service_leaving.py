"""How workers leave: in order, at once, and without holding what others could go on with."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiki.adapters.broker.memory import MemoryBroker
from aiki.engine.commands import WorkerCommand
from aiki.engine.events import RunOrphaned
from aiki.engine.status import RunStatus
from aiki.ports.broker import Subscription
from aiki.sdk import publisher
from aiki.sdk.client import Client
from aiki.worker import holding
from aiki.worker.service import Worker, WorkerSettings
from tests.sdk.support import SOON, Engine, an_engine, eventually, published
from tests.worker.support import Bench, HeldUpBroker


@asynccontextmanager
async def a_worker(engine: Engine, bench: Bench, **options: Any) -> AsyncIterator[Worker]:
    client = await engine.client(listen=False)
    async with Worker(client, [bench.working], **options) as worker:
        yield worker


async def test_a_stop_that_was_cancelled_may_be_asked_for_again() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench, shutdown_grace=SOON) as worker:
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            stopping = asyncio.create_task(worker.stop())
            await eventually(lambda: worker._stopping)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

            async with asyncio.timeout(SOON):
                await worker.stop(grace=0)

        bench.open.set()
        async with a_worker(engine, bench):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_who_waits_for_a_stop_that_is_cancelled_goes_on_with_it() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench, shutdown_grace=SOON) as worker:
            await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            first = asyncio.create_task(worker.stop())
            await eventually(lambda: worker._stopping)
            second = asyncio.create_task(worker.stop(grace=0))
            await asyncio.sleep(0)
            first.cancel()

            await asyncio.wait_for(second, SOON)

        assert worker.held_runs == ()
        await eventually(lambda: engine.hub.ready("working@1.0.0"))


async def test_a_stop_waits_for_the_task_that_executes_and_gives_the_run_back_where_it_is() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench, shutdown_grace=SOON) as worker:
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            stopping = asyncio.create_task(worker.stop())
            await asyncio.sleep(0)
            bench.open.set()
            await asyncio.wait_for(stopping, SOON)

        assert bench.done == ["a-1"]
        await eventually(lambda: engine.hub.ready("working@1.0.0"))
        assert await handle.status() is RunStatus.QUEUED

        async with a_worker(engine, bench):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]
        assert bench.done == ["a-1", "a-2"]


async def test_what_exceeds_the_grace_is_stopped_and_goes_on_elsewhere_without_counting_against_the_run() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)

            await asyncio.wait_for(worker.stop(grace=0.01), SOON)

        assert bench.stopped == 1
        assert bench.done == []
        async with a_worker(engine, bench):
            await eventually(lambda: bench.begun == 2)
            bench.open.set()
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]
        run = await handle.get()
        assert run.recoveries == 0
        assert not run.alone


async def test_runs_that_wait_for_a_slot_are_given_back_unexecuted() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench, max_concurrent_runs=2) as worker:
            # All slots are taken by somebody who never leaves.
            await worker._crew._slots.acquire()
            await worker._crew._slots.acquire()
            handle = await bench.working.with_options(confirm="stored").enqueue(client, "a")
            await eventually(lambda: worker.held_runs)
            await engine.stop_orchestrator()

            await asyncio.wait_for(worker.stop(grace=SOON), SOON)

        (event,) = published(engine)
        assert isinstance(event, RunOrphaned)
        assert (event.run_id, event.handed_back) == (handle.id, True)
        assert bench.begun == 0
        assert engine.hub.held("working@1.0.0") == 0


async def test_an_abort_leaves_everything_to_the_broker() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)

            await asyncio.wait_for(worker.abort(), SOON)

            assert bench.stopped == 1
            assert len(engine.hub.ready("working@1.0.0")) == 1

        bench.open.set()
        async with a_worker(engine, bench):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_an_abort_ends_a_stop_that_takes_long() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            stopping = asyncio.create_task(worker.stop(grace=3600))
            await asyncio.sleep(0)

            await asyncio.wait_for(worker.abort(), SOON)

            await asyncio.wait_for(stopping, SOON)
            await asyncio.wait_for(worker.run_until_stopped(), SOON)


async def test_stopping_twice_waits_twice_and_stops_once() -> None:
    bench = Bench()
    async with an_engine() as engine, a_worker(engine, bench) as worker:
        await asyncio.wait_for(asyncio.gather(worker.stop(), worker.stop()), SOON)
        await asyncio.wait_for(worker.stop(), SOON)
        await asyncio.wait_for(worker.run_until_stopped(), SOON)


async def test_a_stop_during_an_outage_is_bounded_and_loses_nothing() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            engine.hub.isolate(worker._surroundings.broker)  # type: ignore[arg-type]

            await asyncio.wait_for(worker.stop(grace=0.01), SOON)

        bench.open.set()
        async with a_worker(engine, bench):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_a_worker_that_is_stopped_while_it_subscribes_takes_no_orders_to_give_them_back_again_and_again() -> None:
    bench = Bench()
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            broker = worker._surroundings.broker
            assert isinstance(broker, MemoryBroker)
            handle = await bench.working.enqueue(client, "a")
            await eventually(lambda: bench.begun)
            gate = Gate(broker)
            bench.lets_go.clear()
            engine.hub.disconnect(broker)
            await eventually(lambda: gate.waiting and engine.hub.ready("working@1.0.0"))

            stopping = asyncio.create_task(worker.stop())
            await eventually(lambda: worker._stopping)
            gate.open.set()
            await eventually(lambda: gate.passed)
            await eventually(lambda: engine.hub.ready("working@1.0.0"))
            bench.lets_go.set()
            await asyncio.wait_for(stopping, SOON)

        run = (await engine.store.load([handle.id]))[handle.id]
        assert run.pair.epoch <= 3
        bench.open.set()
        async with a_worker(engine, bench):
            assert await handle.wait_for_completion(timeout=SOON) == ["a-1", "a-2"]


async def test_what_a_worker_is_given_while_it_subscribes_is_served_too() -> None:
    bench, later = Bench(), Bench()
    later.working.name = "later"
    async with an_engine() as engine:
        client = await engine.client()
        async with a_worker(engine, bench) as worker:
            broker = worker._surroundings.broker
            assert isinstance(broker, MemoryBroker)
            gate = Gate(broker)
            engine.hub.disconnect(broker)
            await eventually(lambda: gate.waiting)

            worker.registry.add(later.working)
            gate.open.set()
            later.open.set()

            handle = await later.working.enqueue(client, "b")
            assert await handle.wait_for_completion(timeout=SOON) == ["b-1", "b-2"]


class Gate:
    """Lets whoever subscribes to commands wait until it is open."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.open = asyncio.Event()
        self.waiting = self.passed = 0
        self._consume = broker.consume_commands
        broker.consume_commands = self._consume_later  # type: ignore[method-assign]  # of this broker alone

    async def _consume_later(self, queues: Collection[str], *, prefetch: int) -> Subscription[WorkerCommand]:
        self.waiting += 1
        await self.open.wait()
        self.passed += 1
        return await self._consume(queues, prefetch=prefetch)


async def test_a_worker_that_goes_on_gives_a_run_back_however_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Or it would keep the command of the run, and do nothing about it, for as long as it lives.
    monkeypatch.setattr(holding, "GIVE_BACK_SECONDS", 0.01)
    monkeypatch.setattr(publisher, "GRACE_SECONDS", 0.01)
    bench, settings = Bench(), WorkerSettings(lease_after=0.02)
    async with an_engine() as engine:
        client, broker = await engine.client(), HeldUpBroker(engine.hub, RunOrphaned)
        async with (
            Client(broker, clock=engine.clock, listen=False) as own,
            Worker(own, [bench.working], settings=settings, max_concurrent_runs=1) as worker,
        ):
            await worker._crew._slots.acquire()  # By somebody who never leaves: the run is out of patience soon.
            await bench.working.enqueue(client, "a")
            await asyncio.wait_for(broker.is_held_up.wait(), SOON)
            (job,) = worker._crew._jobs
            has_given_up, _ = await asyncio.wait([job], timeout=0.2)
            broker.goes_on.set()
            await asyncio.wait_for(job, SOON)

            assert not has_given_up
            assert job.exception() is None


async def test_a_run_may_be_fenced_in_the_moment_in_which_it_is_out_of_patience() -> None:
    bench, settings = Bench(), WorkerSettings(lease_after=0.02)
    async with an_engine() as engine:
        client, own = await engine.client(), await engine.client(listen=False)
        async with Worker(own, [bench.working], settings=settings, max_concurrent_runs=1) as worker:
            await worker._crew._slots.acquire()  # By somebody who never leaves.
            await bench.working.enqueue(client, "a")
            await eventually(lambda: worker._crew._held)
            (held,), (job,) = worker._crew._held.values(), worker._crew._jobs
            await eventually(lambda: held._waiting is not None and held._waiting.expired())

            held.fence()

            await asyncio.wait_for(job, SOON)
            assert job.exception() is None
