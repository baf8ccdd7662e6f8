"""A live system is sent everything that it should never get: it goes on, and says what was wrong with what.

Real servers and real processes. The good runs around the bad messages all end as if nothing had happened.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import aio_pika
import psutil
import pytest

from aiki import Client, Handle
from aiki.codec.messages import encode_command, encode_control, encode_dead_letter, encode_events
from aiki.engine.commands import DeadLetter, ExecuteTask, NotifyWorker, WorkerNotice
from aiki.engine.dispatching import execute_run
from aiki.engine.events import (
    CancelRequested,
    Event,
    JournalAppended,
    RunCompleted,
    RunFailed,
    RunOrphaned,
    RunRequested,
    RunStarted,
    RunSuspended,
    SignalSent,
    TaskFinished,
    TimerFired,
)
from aiki.engine.ids import partition_of
from aiki.engine.journal import EntryKind, Failure, JournalEntry
from aiki.engine.payload import NULL, Payload, digest
from aiki.engine.state import Pair, RunState
from aiki.testing.builders import T0
from broker_topology import CONTROL
from tests.fuzz import app
from tests.fuzz.mutations import mutants, samples
from tests.fuzz.raw_properties import publish_raw
from tests.scenarios.cluster import Cluster, Process, eventually

# Processes and servers of a machine with much else to do take long to begin.
pytestmark = pytest.mark.timeout(180)

PATIENCE = 60.0
PARTITIONS = 8
MEMORY_MAX = 512 * 1024 * 1024
COMMANDS = "count-to-three@1.0.0"
TASKS = "gpu"
SERVED = ("count-to-three", "five-steps", "picture", TASKS)

# Of each kind of message every so many-th mutant: some hundreds, of all types and places.
EVERY = 120


class Wire:
    """Publishes to any queue of the broker, past everything that Aiki checks."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel

    async def put(self, queue: str, *bodies: bytes) -> None:
        sending = [self._channel.default_exchange.publish(aio_pika.Message(body), queue) for body in bodies]
        await asyncio.gather(*sending)

    async def tell_worker(self, worker: str, *bodies: bytes) -> None:
        exchange = await self._channel.get_exchange(CONTROL, ensure=False)
        await asyncio.gather(*(exchange.publish(aio_pika.Message(body), worker) for body in bodies))

    async def say(self, *events: Event, partition: int | None = None) -> None:
        for event in events:
            where = partition_of(event.run_id, PARTITIONS) if partition is None else partition
            await self.put(f"aiki.events.{where}", encode_events([event]))

    async def left_in(self, queue: str) -> int:
        declared = await self._channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


@pytest.fixture
async def wire(cluster: Cluster) -> AsyncIterator[Wire]:
    async with await aio_pika.connect(cluster.amqp_url) as connection:
        yield Wire(await connection.channel(publisher_confirms=True))


async def all_good(client: Client, *, runs: int = 10) -> None:
    """Have some runs done: the system is alive."""
    handles = [await app.count_to_three.enqueue(client, number) for number in range(runs)]
    picture = await app.picture.enqueue(client, 7)
    results = [await handle.wait_for_completion(timeout=PATIENCE) for handle in handles]
    assert results == [number + 3 for number in range(runs)]
    assert await picture.wait_for_completion(timeout=PATIENCE) == "frame 7"


async def check_health(wire: Wire, processes: Sequence[Process]) -> None:
    """Every consumer came to the end of its queue, and no process has grown or complained of itself."""
    for queue in (*(f"aiki.events.{number}" for number in range(PARTITIONS)), "aiki.queries", COMMANDS, TASKS):
        async with asyncio.timeout(PATIENCE):
            while await wire.left_in(queue):  # noqa: ASYNC110 - a broker does not tell
                await asyncio.sleep(0.05)
    for process in processes:
        assert process.is_alive, process.output()[-3000:]
        assert psutil.Process(process.pid).memory_info().rss < MEMORY_MAX
        for sign in ("consumer.failed", "worker.job_broke", "broker.cannot_pack", "query.failed", "broker.lost"):
            assert sign not in process.output(), process.output()[-3000:]


async def letters_of(client: Client) -> list[DeadLetter]:
    """List all dead letters, page by page."""
    found: list[DeadLetter] = []
    cursor = None
    while True:
        page = await client.dead_letters(limit=1000, cursor=cursor)
        found += [stored.letter for stored in page.letters]
        cursor = page.cursor
        if cursor is None:
            return found


async def letters_once(client: Client, are_there: Callable[[list[DeadLetter]], bool]) -> list[DeadLetter]:
    """List all dead letters when those that are waited for *are there*, or when there was time enough."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not are_there(found := await letters_of(client)) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.1)
    return found


FORGED_LETTERS = [
    DeadLetter(id="zeros", reason="x" * 255, at=T0, origin="aiki.events.0", body="\0" * 2_000_000, detail="\x1b[2J"),
    DeadLetter(id="\x1b]0;title\x07", reason="[/red]", at=T0, origin="x@1.0.0", body="[bold]\x1b[31m", detail="?"),
    DeadLetter(id="nowhere", reason="y", at=T0, origin="no queue at all\n", body="{}", detail="?"),
]
FORGED_IDS = {letter.id for letter in FORGED_LETTERS}


def hostile(kind: str) -> list[bytes]:
    """Write what does not belong where messages of *kind* are read."""
    evil = [body for sample in samples(kind) for body in list(mutants(sample))[::EVERY]]
    foreign = [samples(other)[0] for other in ("events", "command", "query", "control") if other != kind]
    return [*evil, *foreign, b"", b"\xff\xfe", b"{", b"x" * 9_000_000]


async def test_no_message_stops_a_live_system(cluster: Cluster, wire: Wire) -> None:
    processes = [cluster.orchestrator(), cluster.worker(*SERVED, app="tests.fuzz.app")]
    queues = {"aiki.events.3": "events", COMMANDS: "command", TASKS: "command", "aiki.queries": "query"}
    for queue, kind in queues.items():
        await wire.put(queue, *hostile(kind))
        await publish_raw(cluster.amqp_url, queue, b"?")
    await wire.put("aiki.dead-letters", b"", b"{", *list(mutants(samples("dead_letter")[0]))[::EVERY])
    await wire.put("aiki.dead-letters", *(encode_dead_letter(letter) for letter in FORGED_LETTERS))

    async with Client.connect(cluster.amqp_url) as client:
        (worker,) = (await client.stats()).workers
        await wire.tell_worker(worker["id"], *hostile("control"))
        await all_good(client)
        await check_health(wire, processes)
        letters = await letters_once(
            client,
            lambda found: (
                {*queues, *FORGED_IDS} <= {name for letter in found for name in (letter.origin, letter.id)}
                and any(letter.origin.startswith(CONTROL) for letter in found)
            ),
        )

    reasons = {letter.reason for letter in letters}
    assert {"broken_json", "wrong_content", "unknown_type", "unknown_version", "too_large"} <= reasons
    assert {letter.origin for letter in letters} >= set(queues)
    assert any(letter.origin.startswith(CONTROL) for letter in letters)
    assert all(letter.detail for letter in letters)
    assert {letter.id for letter in letters} >= FORGED_IDS
    for letter in FORGED_LETTERS[:2]:
        shown = await asyncio.to_thread(cluster.run, "dead-letters", "show", letter.id)
        assert shown.returncode == 0, shown.stderr
        assert "\x1b" not in shown.stdout
    refused = await asyncio.to_thread(cluster.run, "dead-letters", "redrive", "nowhere")
    assert refused.returncode == 1
    assert "nothing is bound" in refused.stderr
    await check_health(wire, processes)


def request(number: int, **changes: Any) -> RunRequested:
    payload = changes.pop("input", Payload('{"start":1}'))
    event = RunRequested(
        id=f"forged-{number}",
        run_id=f"forged-run-{number}",
        at=T0,
        incarnation=f"incarnation-{number}",
        workflow="count-to-three",
        version="1.0.0",
        queue=COMMANDS,
        input=payload,
        input_hash=digest(payload),
    )
    return replace(event, **changes)


# Past the client, a request may say all this. What makes no sense ends as a failed run or as a dead letter.
REQUESTS: list[dict[str, Any]] = [
    {"priority": 10**30},
    {"priority": -5},
    {"trace": "x" * 255},
    {"retention": 1e300},
    {"retention": -1e300},
    {"recoveries_max": -1},
    {"recoveries_max": 10**30},
    {"client": "*.#"},
    {"client": "nobody", "answer": True},
    {"tags": ("a",) * 32},
    {"input": Payload("not json")},
    {"input": Payload("[" * 100_000)},
    {"input": Payload('{"start":' + "9" * 10_000 + "}")},
    {"input": Payload('{"start":"many"}')},
    {"input": Payload("null")},
    {"workflow": "no-such"},
    {"workflow": "*.#", "version": "\x1b[31m"},
    {"key": "\x00", "run_id": "forged-run-*.#"},
    {"timeout_at": T0},
    {"start_at": T0},
]


async def test_requests_that_no_client_would_send_end_like_others(cluster: Cluster, wire: Wire) -> None:
    processes = [cluster.orchestrator(), cluster.worker(*SERVED, app="tests.fuzz.app")]
    requests = [request(number, **changes) for number, changes in enumerate(REQUESTS)]
    nowhere = request(98, queue="aiki.events.0"), request(99, queue="no queue\n")
    await wire.say(*requests, *nowhere)

    async with Client.connect(cluster.amqp_url) as client:
        await all_good(client)
        for event in requests:
            run = await ended(client.handle(event.run_id))
            assert run.status.value in ("completed", "failed"), (event, run)
        page = await client.find(limit=1000)
        assert len(page.runs) == 11 + len(requests)
        letters = await letters_once(client, lambda found: len(found) >= len(nowhere))
        details = "".join(letter.detail for letter in letters)
        assert all(event.run_id in details for event in nowhere)

    await check_health(wire, processes)


# Past the orchestrator, an order may say all this. Somebody executes it or says why not, and nobody waits for it.
ORDERS: list[dict[str, Any]] = [
    {"attempt": 10**30},
    {"attempt": -1},
    {"timeout": -1.0},
    {"timeout": 0.0},
    {"timeout": 1e308},
    {"task": "no-such"},
    {"task": "\x1b[31m" * 50_000},
    {"run_id": "\x00" * 1000},
    {"run_id": "*.#", "trace": "x" * 200_000},
    {"task_id": "x" * 100_000},
    {"idempotency_key": "", "operation": ""},
    {"input": Payload("not json")},
    {"input": Payload("[" * 100_000)},
    {"input": Payload("null")},
    {"input": Payload('{"frame":' + "9" * 10_000 + "}")},
    {"input": Payload('{"frame":"first","self":1}')},
]


async def test_orders_of_tasks_that_nobody_gave_change_no_run(cluster: Cluster, wire: Wire) -> None:
    processes = [cluster.orchestrator(), cluster.worker(*SERVED, app="tests.fuzz.app")]
    order = ExecuteTask(
        queue=TASKS,
        run_id="forged-run",
        incarnation="forged",
        task_id="forged-task",
        task="render",
        operation="task:render:0#1",
        attempt=1,
        input=Payload('{"frame":1}'),
        idempotency_key="forged",
    )
    async with Client.connect(cluster.amqp_url) as client:
        await all_good(client)
        before = (await client.find(limit=1000)).runs
        await wire.put(TASKS, *(encode_command(replace(order, **changes)) for changes in ({}, *ORDERS)))
        for run in before:
            await wire.put(TASKS, encode_command(replace(order, run_id=run.run_id, incarnation=run.incarnation)))
            await wire.put(COMMANDS, encode_command(replace(order, queue=COMMANDS, run_id=run.run_id)))

        await all_good(client)
        await check_health(wire, processes)
        after = {run.run_id: run for run in (await client.find(limit=1000)).runs}
        assert [after[run.run_id] for run in before] == list(before)
        assert len(after) == 2 * len(before)


async def ended(handle: Handle[Any]) -> RunState:
    async with asyncio.timeout(PATIENCE):
        while not (run := await handle.get()).status.is_final:  # noqa: ASYNC110 - others asked for it
            await asyncio.sleep(0.05)
    return run


async def recorded(handle: Handle[Any], *, entries: int) -> Sequence[JournalEntry]:
    """Wait until so many entries are stored: what a task has done is recorded while the next one runs."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await handle.journal()) < entries:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.05)
    return found


def forgeries(run: RunState, pair: Pair, worker: str) -> list[Event]:
    """Say all that the holder of a run could say of it, under *pair* and as *worker*."""
    said: dict[str, Any] = {"run_id": run.run_id, "at": T0, "incarnation": run.incarnation, "pair": pair}
    of_worker = {**said, "worker": worker}
    lie = JournalEntry(
        seq=1, epoch=pair.epoch, at=T0, kind=EntryKind.TASK_COMPLETED, operation="task:step:lie#1", payload=NULL
    )
    return [
        RunStarted(id="f1", **of_worker),
        JournalAppended(id="f2", **of_worker, entries=(lie,)),
        JournalAppended(id="f3", **of_worker, entries=(replace(lie, seq=7),)),
        RunSuspended(id="f4", **of_worker, last_seq=0),
        RunCompleted(id="f5", **of_worker, last_seq=0, result=Payload('"forged"')),
        RunFailed(id="f6", **of_worker, last_seq=0, failure=Failure(type="Forged", message="forged")),
        RunOrphaned(id="f7", **of_worker),
        TimerFired(id="f8", **said, due_at=T0),
        TaskFinished(id="f9", run_id=run.run_id, at=T0, incarnation=run.incarnation, task_id="nobody's", worker=worker),
    ]


async def test_whoever_does_not_hold_a_run_changes_nothing_of_it(cluster: Cluster, wire: Wire) -> None:
    processes = [cluster.orchestrator(), cluster.worker(*SERVED, app="tests.fuzz.app")]
    cluster.world.hold("step-3")
    async with Client.connect(cluster.amqp_url) as client:
        handle, other = await app.five_steps.enqueue(client), await app.five_steps.enqueue(client)
        await asyncio.to_thread(eventually, lambda: len(cluster.world.effects("step-3:begin")) == 2, "both at step 3")
        before = await recorded(handle, entries=2)
        run, neighbour = await handle.get(), await other.get()
        holder = run.holder or ""

        old = Pair(run.pair.epoch - 1, run.pair.dispatch_id)
        for pair, worker in [
            (old, holder),
            (Pair(run.pair.epoch, "guessed"), holder),
            (Pair(run.pair.epoch + 1, run.pair.dispatch_id), holder),
            (neighbour.pair, holder),
            (run.pair, "somebody-else"),
        ]:
            events = forgeries(run, pair, worker)
            # Of a worker that has the right pair of a run that it does not hold, only the loss of the holder counts.
            await wire.say(
                *(one for one in events if pair != run.pair or not isinstance(one, RunOrphaned | TimerFired))
            )
        for partition in range(PARTITIONS):
            await wire.say(*forgeries(run, old, holder), partition=partition)
        for notice in WorkerNotice:
            forged = NotifyWorker(worker=holder, run_id=run.run_id, pair=old, notice=notice, source="nobody")
            await wire.tell_worker(holder, encode_control(forged))
        stale = execute_run(replace(run, pair=old), now=T0, recovering=False)
        await wire.put("five-steps@1.0.0", encode_command(replace(stale, journal=(), base_seq=0)))

        await all_good(client)
        assert await handle.journal() == before
        cluster.world.release("step-3")
        assert await handle.wait_for_completion(timeout=PATIENCE) == [f"step-{number}" for number in range(1, 6)]
        assert await other.wait_for_completion(timeout=PATIENCE) == [f"step-{number}" for number in range(1, 6)]
        entries = await handle.journal()
        assert [entry.seq for entry in entries] == [*range(1, len(entries) + 1)]

        # It is over: nothing that is said again, or newly, in its name makes it begin once more.
        again = request(1, run_id=run.run_id, id=run.requested_by, incarnation=run.incarnation, workflow="five-steps")
        done = await handle.get()
        await wire.say(again, replace(again, id="another"), *forgeries(run, done.pair, done.holder or ""))
        await wire.say(SignalSent(id="late", run_id=run.run_id, at=T0, name="go", payload=NULL))
        await wire.say(CancelRequested(id="late-2", run_id=run.run_id, at=T0))
        await all_good(client)
        after = await handle.get()
        assert (after.status, after.result, after.pair) == (done.status, done.result, done.pair)
        assert await handle.journal() == entries

    await check_health(wire, processes)
