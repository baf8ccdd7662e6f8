"""How a client hears what became of its runs: pushed, never polled.

One subscription serves all handles of a client. What is pushed is not kept while
nobody listens, so after a gap (a lost connection, a run that was started before
anybody listened) whoever waits asks once, and only when somebody listens again:
what happens after that question is heard.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from types import TracebackType
from weakref import WeakValueDictionary

from aiki.asynchronous import end
from aiki.engine.commands import AnnounceAcceptance, AnnounceOutcome, Notice
from aiki.engine.events import RunRequested
from aiki.engine.journal import Failure
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.errors import BrokerError, ClientClosedError, DeliveryLostError, QueryFailedError
from aiki.observability.logs import get_logger
from aiki.ports.broker import ClientBroker, NoticeSubscription

__all__ = ["Acceptance", "Interest", "Outcome", "OutcomeListener"]

log = get_logger(__name__)

# A question that found no orchestrator is asked again after this long, doubling up to the last one, with jitter.
PAUSE_FIRST, PAUSE_LAST = 0.1, 5.0

# After an outage every handle asks; more at the same time would only queue up at the orchestrators.
QUESTIONS_MAX = 16

UNWATCH_SECONDS = 1.0

AskRun = Callable[[str], Awaitable[RunState | None]]
"""Reads a run; raises a ``BrokerError`` where nobody answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    workflow: str
    status: RunStatus
    at: datetime | None
    result: Payload | None
    failure: Failure | None


class _Expected:
    """Something that is going to be said, or was, while nobody listened."""

    __slots__ = ("__weakref__", "_waiting", "changes", "stale")

    def __init__(self, *, stale: bool) -> None:
        self.stale = stale
        """Whether it may have been said while nobody listened: then somebody has to ask."""
        self.changes = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Tell everybody who waits that something changed."""
        self.changes += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def change_after(self, changes: int) -> None:
        """Wait until there were more than *changes* changes."""
        if self.changes > changes:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


class Interest(_Expected):
    """What a client knows of one run that somebody in it cares for. All handles of the run share it."""

    __slots__ = ("known", "missing", "outcome", "run_id", "superseded")

    def __init__(self, run_id: str, *, stale: bool) -> None:
        super().__init__(stale=stale)
        self.run_id = run_id
        self.outcome: Outcome | None = None
        self.known = False
        """Whether the run was seen in the store."""
        self.missing = False
        """Whether it was looked for, and is not there."""
        self.superseded: datetime | None = None
        """An end up to this moment does not count: the run was asked to go on after it."""

    def settle(self, outcome: Outcome) -> None:
        """Note how the run ended, unless that was before it was asked to go on."""
        self.known = True
        if self.superseded is None or (outcome.at is not None and outcome.at > self.superseded):
            self.outcome = outcome
            self.wake()

    def reopen(self, ended_at: datetime | None) -> None:
        """Forget how the run ended. No end up to *ended_at* counts: it was asked to go on after that."""
        self.superseded = ended_at
        self.outcome = None
        self.stale = True
        self.wake()


class Acceptance(_Expected):
    """The answer to one request for a run."""

    __slots__ = ("answer", "request")

    def __init__(self, request: RunRequested, *, stale: bool) -> None:
        super().__init__(stale=stale)
        self.request = request
        self.answer: AnnounceAcceptance | None = None

    def settle(self, answer: AnnounceAcceptance) -> None:
        """Note the answer."""
        self.answer = answer
        self.wake()


class OutcomeListener:
    """Keeps one subscription to the notices for a client, and passes them on to whoever waits."""

    def __init__(self, broker: ClientBroker, client_id: str, ask_run: AskRun, find_run: AskRun) -> None:
        """*find_run* looks more than once before it says that there is no such run."""
        self.client_id = client_id
        self._broker = broker
        self._ask_run = ask_run
        self._find_run = find_run
        self._interests: WeakValueDictionary[str, Interest] = WeakValueDictionary()
        self._acceptances: WeakValueDictionary[str, Acceptance] = WeakValueDictionary()
        self._watchers: dict[str, int] = {}
        self._questions = asyncio.Semaphore(QUESTIONS_MAX)
        self._subscription: NoticeSubscription | None = None
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Listen from now on; returns once nothing later can be missed.

        Raises:
            ClientClosedError: it was closed.
        """
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._listen(), name="aiki-outcomes")
        await self._listening.wait()
        self._check_open()

    async def close(self) -> None:
        """Stop listening; whoever waits gets a ``ClientClosedError``. Safe to call twice."""
        self._closed = True
        await end(self._task)
        self._wake_all()

    def interest_in(self, run_id: str, *, fresh: bool = False) -> Interest:
        """Give the interest in *run_id* that all its handles share; *fresh*: nothing can have been said of it yet."""
        interest = self._interests.get(run_id)
        if interest is None:
            interest = Interest(run_id, stale=not (fresh and self._listening.is_set()))
            self._interests[run_id] = interest
        return interest

    def reopen(self, run_id: str, ended_at: datetime) -> None:
        """Forget that *run_id* ended, if that was at *ended_at* or before: it was asked to go on."""
        interest = self._interests.get(run_id)
        ended = None if interest is None or interest.outcome is None else interest.outcome.at
        if interest is not None and ended is not None and ended <= ended_at:
            interest.reopen(ended_at)

    def acceptance_of(self, request: RunRequested) -> Acceptance:
        """Expect the answer to *request*, which is not sent yet."""
        acceptance = Acceptance(request, stale=not self._listening.is_set())
        self._acceptances[request.id] = acceptance
        return acceptance

    async def outcome(self, interest: Interest, *, addressed: bool) -> Outcome | None:
        """Wait until the run is over; ``None``: there is no such run.

        *addressed*: this client started the run, so its notices come here, and not finding it
        in the store means that it is not stored yet, unless it was found there before.
        """
        if interest.outcome is None:
            if interest.missing:
                interest.missing, interest.stale = False, True
            await self.start()
            if addressed:
                return await self._settled(interest, addressed=True)
            async with self.watching(interest):
                return await self._settled(interest, addressed=False)
        return interest.outcome

    async def accepted(self, acceptance: Acceptance) -> AnnounceAcceptance:
        """Wait to hear that a requested run is stored, or which one was there before."""

        async def ask() -> None:
            run = await self._ask_run(acceptance.request.run_id)
            if run is not None:
                self._accept(acceptance, _acceptance_by(run, acceptance.request, self.client_id))

        await self._until(acceptance, lambda: acceptance.answer is not None, ask)
        if acceptance.answer is None:
            raise ClientClosedError
        return acceptance.answer

    def watching(self, interest: Interest) -> "_Watching":
        """Hear of a run that somebody else started, inside the ``async with`` block."""
        return _Watching(self, interest)

    async def watch(self, interest: Interest) -> None:
        """Hear of a run from now on; what happened before has to be asked for."""
        run_id = interest.run_id
        self._watchers[run_id] = self._watchers.get(run_id, 0) + 1
        if self._subscription is not None and self._watchers[run_id] == 1:
            with suppress(DeliveryLostError):  # Then it is watched as part of listening again.
                await self._subscription.watch(run_id)
            interest.stale = True

    async def unwatch(self, interest: Interest) -> None:
        """Undo one ``watch``."""
        run_id = interest.run_id
        self._watchers[run_id] -= 1
        if self._watchers[run_id] == 0:
            del self._watchers[run_id]
            interest.stale = True
            if self._subscription is not None:
                # At worst we hear of a run that nobody cares for: never worth keeping anybody waiting.
                with suppress(BrokerError, TimeoutError):
                    async with asyncio.timeout(UNWATCH_SECONDS):
                        await self._subscription.unwatch(run_id)

    async def _settled(self, interest: Interest, *, addressed: bool) -> Outcome | None:
        async def ask() -> None:
            is_there = addressed or interest.known
            run = await (self._ask_run if is_there else self._find_run)(interest.run_id)
            if run is None:
                interest.missing = interest.known or not addressed
                interest.wake()
                return
            interest.known = True
            if run.status.is_final:
                interest.settle(Outcome(run.workflow, run.status, run.finished_at, run.result, run.failure))

        await self._until(interest, lambda: interest.outcome is not None or interest.missing, ask)
        return interest.outcome  # Now: it may be forgotten before whoever waits has stopped to watch.

    async def _until(
        self, expected: _Expected, is_settled: Callable[[], bool], ask: Callable[[], Awaitable[None]]
    ) -> None:
        """Wait for what is pushed, and ask where it may have been missed. One of those who wait asks for all."""
        pause = PAUSE_FIRST
        try:
            while not is_settled():
                self._check_open()
                changes = expected.changes
                if not expected.stale:
                    await expected.change_after(changes)
                elif await self._asked(expected, ask):
                    pause = PAUSE_FIRST
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(random.uniform(pause / 2, pause)):
                            await expected.change_after(changes)
                    pause = min(pause * 2, PAUSE_LAST)
        finally:
            if expected.stale:
                expected.wake()  # Whoever else waits has to ask now.

    async def _asked(self, expected: _Expected, ask: Callable[[], Awaitable[None]]) -> bool:
        """Ask once somebody listens; tell whether there was an answer."""
        await self._listening.wait()
        if not expected.stale:
            return True  # Somebody else asks already.
        expected.stale = False  # First: a gap that opens during the question makes it stale again.
        try:
            async with self._questions:
                await ask()
        except (BrokerError, QueryFailedError) as error:  # Nobody is there, or whoever is has trouble with the store.
            expected.stale = True
            log.debug("outcomes.nobody_answers", error=error.message)
            return False
        except BaseException:
            expected.stale = True
            raise
        return True

    async def _listen(self) -> None:
        """Subscribe, pass on what is heard, and subscribe again whenever that is lost."""
        pause = PAUSE_FIRST
        try:
            while True:
                try:
                    subscription = await self._subscribe()
                    pause = PAUSE_FIRST
                    await self._pass_on(subscription)
                except BrokerError as error:
                    log.info("outcomes.not_heard", error=str(error))
                self._open_gap()
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(pause * 2, PAUSE_LAST)
        except Exception:
            log.exception("outcomes.listener_broke")
            raise
        finally:
            self._closed = True
            self._wake_all()
            if self._subscription is not None:
                await self._subscription.close()

    async def _subscribe(self) -> NoticeSubscription:
        subscription = await self._broker.consume_notices(self.client_id)
        watched: set[str] = set()
        while missing := self._watchers.keys() - watched:  # Others may come while one is being watched.
            for run_id in missing:
                await subscription.watch(run_id)
            watched |= missing
        self._subscription = subscription
        self._listening.set()
        return subscription

    async def _pass_on(self, subscription: NoticeSubscription) -> None:
        while True:
            deliveries = await subscription.receive()
            for delivery in deliveries:
                self._hear(delivery.body)
            await subscription.acknowledge(deliveries)

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, AnnounceAcceptance):
            acceptance = self._acceptances.get(notice.request_id)
            if acceptance is not None:
                self._accept(acceptance, notice)
            return

        interest = self._interests.get(notice.run_id)
        if interest is None:
            return  # Its handle was dropped.
        if isinstance(notice, AnnounceOutcome):
            interest.settle(Outcome(notice.workflow, notice.status, notice.at, notice.result, notice.failure))
        else:
            interest.wake()

    def _accept(self, acceptance: Acceptance, answer: AnnounceAcceptance) -> None:
        """Pass on the answer to a request. An end that was heard of before may be that of an earlier run of its key."""
        acceptance.settle(answer)
        interest = self._interests.get(answer.run_id)
        if interest is not None and interest.outcome is not None:
            interest.reopen(None)  # The new run may end at an earlier moment, by a clock that was set back.

    def _open_gap(self) -> None:
        self._subscription = None
        self._listening.clear()
        for expected in chain(list(self._interests.values()), list(self._acceptances.values())):
            expected.stale = True
            expected.wake()

    def _wake_all(self) -> None:
        self._listening.set()
        for expected in chain(list(self._interests.values()), list(self._acceptances.values())):
            expected.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError


class _Watching:
    """Watches a run as long as its block lasts."""

    def __init__(self, listener: OutcomeListener, interest: Interest) -> None:
        self._listener = listener
        self._interest = interest

    async def __aenter__(self) -> Interest:
        await self._listener.watch(self._interest)
        return self._interest

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._listener.unwatch(self._interest)


def _acceptance_by(run: RunState, request: RunRequested, client: str) -> AnnounceAcceptance:
    """Say what the notice would have said, from the run itself."""
    return AnnounceAcceptance(
        client=client,
        request_id=request.id,
        run_id=run.run_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        input_hash=run.input_hash,
        existing=run.requested_by != request.id,
    )
