"""A world for executions: the real engine, a broker that is a method call, workers that crash where a test says.

Time is virtual: whenever nothing else can happen, it jumps to the next timer.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import count
from typing import Any, ParamSpec, TypeVar

from aiki.engine.commands import (
    ArmTimer,
    Command,
    DeadLetter,
    ExecuteRun,
    ExecuteTask,
    NotifyWorker,
    ParkDeadLetter,
    SendEvent,
)
from aiki.engine.decide import Moment, decide
from aiki.engine.events import Event, RunOrphaned, RunRequested
from aiki.engine.holding import wake_up
from aiki.engine.journal import JournalEntry
from aiki.engine.payload import Payload, digest, load_payload
from aiki.engine.queries import Answer, GetJournal, JournalPage, Query
from aiki.engine.state import RunState
from aiki.errors import RunAbandonedError
from aiki.ports.clock import Clock
from aiki.sdk.registry import Registry
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow
from aiki.worker.attempts import execute_task
from aiki.worker.execution import Execution
from aiki.worker.host import Host

P = ParamSpec("P")
T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait for time to pass, and lets it pass instead."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0 if timeout is not None else 5)
        if not events:
            assert timeout is not None, "nothing is ever going to happen"
            # What floating point rounds off must not keep the timer from being due.
            self.elapsed += timeout + 1e-9 if timeout > 0 else 0
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed


def in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* as ``asyncio.run`` does, without waiting."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an ``async`` test in virtual time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        in_virtual_time(test(*args, **kwargs))

    return run


class VirtualClock(Clock):
    """The time of the running loop."""

    behind = timedelta()

    def now(self) -> datetime:
        moment = START + timedelta(seconds=asyncio.get_running_loop().time())
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000) - self.behind

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class World:
    """One engine, and a new worker for each dispatch."""

    def __init__(
        self,
        *definitions: Workflow[..., Any] | Task[..., Any],
        crashes: Iterable[tuple[int, bool]] = (),
        max_in_place_wait: float = 0.25,
        page: int | None = None,
    ) -> None:
        """*crashes*: before which publish a worker dies, counted over all, and whether that still arrives.

        *page*: how many entries come with an order, where not all do.
        """
        self.registry = Registry(*definitions)
        self.clock = VirtualClock()
        self.runs: dict[str, RunState] = {}
        self.journals: dict[str, list[JournalEntry]] = {}
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self.executions: dict[str, tuple[ExecuteRun, WorldHost, Execution]] = {}
        self.crashed_in_epoch = 0
        self.violations: list[str] = []
        self.dispatches = 0
        self.publishes = 0
        self.max_in_place_wait = max_in_place_wait
        self.grace = 10.0
        self.letters: list[DeadLetter] = []
        self.arrives_after = 0.0
        self.confirms_after = 0.0
        self.is_paused_before_dispatch = False
        self.held_back: list[ExecuteRun] = []
        self._crashes = dict(crashes)
        self._page = page
        self._ids = count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trouble: list[BaseException] = []

    # -- the client's side -----------------------------------------------------------------------

    def start(self, workflow: Workflow[..., Any], *args: Any, run_id: str = "run", **changes: Any) -> str:
        payload = workflow.signature.dump(args, {})
        self.apply(
            RunRequested(
                id=f"request:{run_id}",
                run_id=run_id,
                at=self.clock.now(),
                incarnation=f"incarnation-of-{run_id}",
                workflow=workflow.name,
                version=workflow.version,
                queue=workflow.queue,
                input=payload,
                input_hash=digest(payload),
                **changes,
            )
        )
        return run_id

    async def until(self, condition: Callable[[], object], *, seconds: float = 1e7) -> None:
        """Wait, in virtual time, until *condition* holds."""
        async with asyncio.timeout(seconds):
            pause = 1e-4
            while not condition():
                self._raise_trouble()
                await asyncio.sleep(pause)
                pause = min(pause * 1.1, 60.0)
        self._raise_trouble()

    async def end_of(self, run_id: str = "run") -> RunState:
        await self.until(lambda: self.runs[run_id].status.is_final)
        return self.runs[run_id]

    async def run(self, workflow: Workflow[..., Any], *args: Any, **changes: Any) -> RunState:
        return await self.end_of(self.start(workflow, *args, **changes))

    def say(self, kind: Callable[..., Event], run_id: str = "run", **facts: Any) -> None:
        """Apply an event of a client."""
        self.apply(kind(id=self.new_id(), run_id=run_id, at=self.clock.now(), **facts))

    def result(self, run_id: str = "run") -> Any:
        run = self.runs[run_id]
        assert run.result is not None, run.failure
        return load_payload(run.result)

    def journal(self, run_id: str = "run") -> list[JournalEntry]:
        return self.journals.get(run_id, [])

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the engine's side -----------------------------------------------------------------------

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"

    def apply(self, event: Event) -> None:
        self.events.append(event)
        before = self.runs.get(event.run_id)
        moment = Moment(now=self.clock.now(), token=self.new_id())
        decision = decide(before, event, moment)
        if decision.run is not None:
            self.runs[event.run_id] = decision.run
            self.journals.setdefault(event.run_id, []).extend(decision.journal)
            if not any(isinstance(command, ArmTimer) for command in decision.commands):
                self._watch_the_clock(before, decision.run)
        for command in decision.commands:
            self._obey(command)

    def _watch_the_clock(self, before: RunState | None, run: RunState) -> None:
        if run.wake_at is not None and (before is None or before.wake_at != run.wake_at):
            # Never at once: a run that is woken for nothing must not keep time from passing.
            left = max((run.wake_at - self.clock.now()).total_seconds(), 0.001)
            event = wake_up(run, Moment(now=run.wake_at, token=""))
            asyncio.get_running_loop().call_later(left, self.apply, event)

    def _obey(self, command: Command) -> None:
        self.commands.append(command)
        loop = asyncio.get_running_loop()
        match command:
            case ExecuteRun():
                self._dispatch(command)
            case SendEvent(event=event):
                loop.call_soon(self.apply, event)
            case ArmTimer(event=event, delay_ms=delay):
                loop.call_later(delay / 1000, self.apply, event)
            case NotifyWorker(run_id=run_id, pair=pair):
                held = self.executions.get(run_id)
                if held is not None and held[0].pair == pair:
                    held[2].notify(command)
            case ExecuteTask():
                self._spawn(self._execute_task(command))
            case ParkDeadLetter(letter=letter):
                self.letters.append(letter)
            case _:
                pass

    # -- the workers' side -----------------------------------------------------------------------

    def _dispatch(self, command: ExecuteRun) -> None:
        journal = tuple(self.journal(command.run_id)[: command.base_seq])
        command = replace(command, journal=journal[: self._page])
        if self.is_paused_before_dispatch:
            self.held_back.append(command)
        else:
            self.take(command)

    def take(self, command: ExecuteRun) -> None:
        self._spawn(self._execute(command))

    def take_held_back(self) -> None:
        self.is_paused_before_dispatch = False
        held, self.held_back = self.held_back, []
        for command in held:
            self.take(command)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble.append(error)

    def _raise_trouble(self) -> None:
        if self._trouble:
            raise self._trouble[0]

    async def _execute(self, command: ExecuteRun) -> None:
        self.dispatches += 1
        host = WorldHost(self, f"worker-{self.dispatches}")
        workflow = self.registry.workflow(command.workflow, command.version)
        execution = Execution(command, workflow, host)
        host.execution = execution
        self.executions[command.run_id] = command, host, execution
        try:
            await execution.execute()
        except RunAbandonedError:
            pass
        finally:
            if self.executions.get(command.run_id, (None,))[0] is command:
                del self.executions[command.run_id]
        if host.is_dead:
            self.crashed_in_epoch = self.crashed_in_epoch or command.pair.epoch + 1
            self._orphan(command)

    def _orphan(self, command: ExecuteRun) -> None:
        """The broker hands the command to another worker, flagged as redelivered."""
        self.apply(
            RunOrphaned(
                id=self.new_id(),
                run_id=command.run_id,
                at=self.clock.now(),
                incarnation=command.incarnation,
                pair=command.pair,
                worker="another",
            )
        )

    async def _execute_task(self, command: ExecuteTask) -> None:
        host = WorldHost(self, "remote")
        self.apply(await execute_task(command, self.registry.task(command.task), host))

    def publishing(self) -> tuple[bool, bool]:
        """Count a publish; tells whether the worker dies of it, and whether it arrives all the same."""
        self.publishes += 1
        if self.publishes > 20_000:
            self._trouble.append(AssertionError("this goes on and on"))
            return True, False
        arrives = self._crashes.get(self.publishes)
        return arrives is not None, arrives is not False

    def kill(self, run_id: str = "run") -> None:
        """End the worker that holds the run, as ``kill -9`` does."""
        self.executions[run_id][1].die()


class WorldHost(Host):
    """A worker that can die."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self.execution: Execution | None = None
        self.is_dead = False

    @property
    def worker(self) -> str:
        return self._name

    @property
    def clock(self) -> Clock:
        return self._world.clock

    @property
    def max_in_place_wait(self) -> float:
        return self._world.max_in_place_wait

    @property
    def grace(self) -> float:
        return self._world.grace

    def publish(self, events: Sequence[Event]) -> Awaitable[None]:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_dead:
            confirmed.set_exception(RunAbandonedError("dead"))
            return confirmed
        loop, world = asyncio.get_running_loop(), self._world
        dies, arrives = world.publishing()
        for event in events if arrives else ():
            if world.arrives_after:
                loop.call_later(world.arrives_after, self._arrive, event)
            else:
                loop.call_soon(world.apply, event)
        if dies:
            self.die()
        else:
            loop.call_later(world.arrives_after + world.confirms_after, _confirm, confirmed)
        return confirmed

    def _arrive(self, event: Event) -> None:
        if not self.is_dead:  # It was still on its way out of the process.
            self._world.apply(event)

    def die(self) -> None:
        self.is_dead = True
        assert self.execution is not None
        self.execution.abandon()

    async def ask(self, query: Query) -> Answer:
        assert isinstance(query, GetJournal)
        entries = self._world.journal(query.run_id)[query.after_seq : query.after_seq + 3]
        return JournalPage(entries=tuple(entries), complete=False)

    async def run_in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(function)

    def new_id(self) -> str:
        return self._world.new_id()


def _confirm(publish: asyncio.Future[None]) -> None:
    if not publish.done():
        publish.set_result(None)


def payload_of(entry: JournalEntry) -> Any:
    assert entry.payload is not None
    return load_payload(Payload(entry.payload))
