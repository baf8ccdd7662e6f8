"""Runs that execute for longer than a command may be held: they go on under a lease."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from aiki.adapters.broker.memory import MemoryBroker, MemoryHub
from aiki.engine.commands import ExecuteRun
from aiki.engine.events import LeaseRenewed
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.sdk.client import Client
from aiki.sdk.handle import Handle
from aiki.testing.clock import ManualClock
from aiki.worker.service import Worker, WorkerSettings
from tests.sdk.support import SOON, Engine, an_engine, eventually, published
from tests.worker.support import Bench, HeldUpBroker, listening

LEASES = WorkerSettings(lease_after=600, lease=300)


class Lease:
    """A worker on a clock that is moved by hand, in an engine whose events nobody takes until they are looked at."""

    def __init__(self, engine: Engine, clock: ManualClock, broker: MemoryBroker, worker: Worker, bench: Bench) -> None:
        self.engine = engine
        self.clock = clock
        self.broker = broker
        self.worker = worker
        self.bench = bench

    def renewals(self) -> list[LeaseRenewed]:
        """The leases in the event queues."""
        return [event for event in published(self.engine) if isinstance(event, LeaseRenewed)]


@asynccontextmanager
async def a_held_run(
    broker_of: Callable[[MemoryHub], MemoryBroker] = MemoryBroker, **options: Any
) -> AsyncIterator[Lease]:
    """Hold one run; nobody takes its events."""
    bench, clock = Bench(), ManualClock()
    async with an_engine() as engine:
        client = await engine.client()
        handle = await bench.working.with_options(confirm="stored").enqueue(client, "a")
        await eventually(lambda: engine.hub.ready("working@1.0.0"))
        await engine.stop_orchestrator()
        broker = broker_of(engine.hub)
        async with (
            Client(broker, clock=clock, listen=False) as own,
            Worker(own, [bench.working], settings=LEASES, shutdown_grace=0, **options) as worker,
        ):
            await eventually(lambda: bench.begun)
            assert worker.held_runs == (handle.id,)
            yield Lease(engine, clock, broker, worker, bench)
            await worker.abort()


async def test_a_command_that_is_held_for_long_is_acknowledged_and_its_run_goes_on_under_a_lease() -> None:
    async with a_held_run() as lease:
        await lease.clock.advance(599)
        assert lease.engine.hub.held("working@1.0.0") == 1
        assert lease.renewals() == []

        await lease.clock.advance(61)

        await eventually(lambda: lease.engine.hub.held("working@1.0.0") == 0)
        assert len(lease.renewals()) == 1
        assert lease.bench.stopped == 0


async def test_a_lease_is_renewed_long_before_it_ends() -> None:
    async with a_held_run() as lease:
        await lease.clock.advance(660)
        for _ in range(4):
            await lease.clock.advance(100)

        renewals = lease.renewals()
        assert len(renewals) == 5
        for earlier, later in pairwise(renewals):
            assert later.at < earlier.until < later.until


async def test_a_leased_run_keeps_its_slot_so_the_broker_does_not_fill_it() -> None:
    async with a_held_run(max_concurrent_runs=1) as lease:
        await lease.clock.advance(660)
        await eventually(lambda: lease.engine.hub.held("working@1.0.0") == 0)
        ready = lease.engine.hub.ready("working@1.0.0")
        broker = await lease.engine.connected()
        (command,) = lease.worker.orders.values()
        await broker.send([replace(command, run_id="another")], timeout=SOON)
        await lease.clock.advance(0)

        assert ready == ()
        assert len(lease.engine.hub.ready("working@1.0.0")) == 1
        assert isinstance(lease.engine.hub.ready("working@1.0.0")[0], ExecuteRun)
        assert lease.worker.held_runs == (command.run_id,)


async def test_a_leased_run_survives_a_lost_connection() -> None:
    async with a_held_run() as lease:
        await lease.clock.advance(660)
        await eventually(lambda: lease.engine.hub.held("working@1.0.0") == 0)

        lease.engine.hub.disconnect(lease.broker)
        await lease.clock.advance(100)

        assert lease.bench.stopped == 0
        await eventually(lambda: len(lease.renewals()) == 2)


async def test_a_lease_that_cannot_be_renewed_ends_the_execution() -> None:
    async with a_held_run() as lease:
        await lease.clock.advance(660)
        await eventually(lease.renewals)

        lease.engine.hub.isolate(lease.broker)
        await lease.clock.advance(200)
        assert lease.bench.stopped == 0
        await lease.clock.advance(100)

        await eventually(lambda: lease.bench.stopped == 1)
        await eventually(lambda: not lease.worker.held_runs)
        lease.engine.hub.rejoin(lease.broker)


async def test_a_first_lease_that_is_confirmed_too_late_does_not_replace_the_command() -> None:
    # The broker blocks who publishes, say, and lets others acknowledge. The lease may be over before it began.
    held_up = partial(HeldUpBroker, kind=LeaseRenewed)
    async with a_held_run(held_up) as lease:
        broker = lease.broker
        assert isinstance(broker, HeldUpBroker)
        await lease.clock.advance(660)
        await asyncio.wait_for(broker.is_held_up.wait(), SOON)
        await lease.clock.advance(300)
        broker.let_go()
        await asyncio.wait_for(broker.is_held_up.wait(), SOON)
        assert len(lease.renewals()) == 1
        assert lease.engine.hub.held("working@1.0.0") == 1

        broker.goes_on.set()

        await eventually(lambda: lease.engine.hub.held("working@1.0.0") == 0)
        assert len(lease.renewals()) == 2
        assert lease.bench.stopped == 0


@asynccontextmanager
async def a_leased_run_that_cannot_be_reached() -> AsyncIterator[tuple[Handle[str], Callable[[], None]]]:
    """Hold a run under a lease, with its worker cut off; what is given lets it be reached again."""
    clock = ManualClock()
    async with an_engine() as engine:
        client = await engine.client()
        broker = MemoryBroker(engine.hub)
        async with (
            Client(broker, clock=clock, listen=False) as own,
            Worker(own, [listening], settings=LEASES, shutdown_grace=0) as worker,
        ):
            handle = await listening.enqueue(client)
            await eventually(lambda: worker.held_runs)
            await clock.advance(660)
            await eventually(lambda: worker._crew.leased == 1 and engine.hub.held("listening@1.0.0") == 0)
            engine.hub.isolate(broker)
            yield handle, partial(engine.hub.rejoin, broker)
            await worker.abort()


async def test_a_cancellation_that_a_leased_run_could_not_hear_of_is_said_again() -> None:
    async with a_leased_run_that_cannot_be_reached() as (handle, rejoin):
        await handle.cancel()
        await _until(handle, lambda run: run.cancel_requested is not None)

        rejoin()

        run = await _until(handle, lambda run: run.status.is_final)
        assert (run.status, run.pair.epoch) == (RunStatus.CANCELLED, 1)


async def test_a_signal_that_a_leased_run_could_not_hear_of_is_said_again() -> None:
    async with a_leased_run_that_cannot_be_reached() as (handle, rejoin):
        await handle.send("go", "yes")
        await _until(handle, lambda run: len(run.inbox) == 1)

        rejoin()

        assert await handle.wait_for_completion(timeout=SOON) == "yes"
        assert (await handle.get()).pair.epoch == 1


async def test_a_worker_takes_no_more_than_it_has_room_for_while_runs_come_under_leases() -> None:
    bench, clock = Bench(), ManualClock()
    async with an_engine() as engine:
        client = await engine.client()
        async with (
            Client(MemoryBroker(engine.hub), clock=clock, listen=False) as own,
            Worker(own, [bench.working], settings=LEASES, shutdown_grace=0, max_concurrent_runs=4) as worker,
        ):
            for number in range(4):
                await bench.working.enqueue(client, str(number))
                await eventually(lambda: bench.begun == number + 1)  # noqa: B023 - it is awaited here
                await clock.advance(70)
            for number in range(4, 24):
                await bench.working.enqueue(client, str(number))
            await eventually(lambda: engine.hub.depth("working@1.0.0") == 20)

            for leased in range(1, 5):
                await _advance_until(clock, lambda: worker._crew.leased == leased)  # noqa: B023 - it is awaited here
                await eventually(lambda: engine.hub.held("working@1.0.0") == 4 - leased)  # noqa: B023 - the same

            assert engine.hub.depth("working@1.0.0") == 20
            assert len(worker.held_runs) == 4
            await worker.abort()


async def _until(handle: Handle[str], condition: Callable[[RunState], bool]) -> RunState:
    """Wait until the run is as it should be."""
    async with asyncio.timeout(SOON):
        while not condition(run := await handle.get()):
            pass
    return run


async def _advance_until(clock: ManualClock, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await clock.advance(10)
