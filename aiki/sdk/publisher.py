"""Events on their way out: batching without waiting.

Each partition has a lane with at most one publish under way. What comes meanwhile
is collected and leaves as the next message, so an event that is alone leaves at
once, and under load one message carries hundreds. Order within a partition is the
order of asking. What the broker did not confirm is sent again with the same event
ids, until it succeeds, its caller's time is over, or its run is forgotten.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiki.asynchronous import end
from aiki.engine.events import Event, RunOrphaned, RunStarted
from aiki.engine.ids import partition_of
from aiki.engine.state import Pair
from aiki.errors import (
    BrokerUnavailableError,
    ClientClosedError,
    PublishUncertainError,
    RunAbandonedError,
    UnroutableError,
)
from aiki.observability.logs import get_logger
from aiki.ports.broker import ClientBroker

__all__ = ["EventPublisher"]

log = get_logger(__name__)

# Long enough to fill a message under load, short enough that its decoding does not hold up an orchestrator.
EVENTS_MAX = 500
BYTES_MAX = 512 * 1024

# How long one try may take. It ends the moment the broker confirms; a try that hangs longer is as good as lost.
TRY_SECONDS = 15.0

# That a run has started is what nobody waits for as a rule: it leaves with what the run says next, or after this long.
# A quick task is over by then, and the two take one message, one confirm and one write of the run instead of two.
STARTED_SECONDS = 0.002

# A broker that refuses at once is asked again after this long, doubling up to the last one, with full jitter.
PAUSE_FIRST, PAUSE_LAST = 0.05, 2.0

# How much longer than its caller's time a try may take to tell what became of it.
GRACE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Letter:
    """An event that waits to be confirmed."""

    event: Event
    weight: int
    confirmed: asyncio.Future[None]
    deadline: float | None
    perhaps_sent: bool = False


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for one partition, and what is under way."""

    partition: int
    waiting: deque[_Letter] = field(default_factory=deque)
    flying: list[_Letter] = field(default_factory=list)
    events_max: int = EVENTS_MAX
    in_trouble: bool = False
    task: asyncio.Task[None] | None = None
    departure: asyncio.TimerHandle | None = None

    def take(self) -> list[_Letter]:
        """Take what fits into the next message; leave out what nobody waits for any more."""
        batch: list[_Letter] = []
        weight = 0
        while self.waiting and len(batch) < self.events_max:
            letter = self.waiting[0]
            if letter.confirmed.done():
                self.waiting.popleft()
                continue
            if batch and weight + letter.weight > BYTES_MAX:
                break
            batch.append(self.waiting.popleft())
            weight += letter.weight
        self.flying = batch
        return batch

    @property
    def may_wait(self) -> bool:
        """Whether nobody waits for what is here: all of it may leave together with what is said next."""
        return bool(self.waiting) and all(isinstance(letter.event, RunStarted) for letter in self.waiting)

    def put_back(self) -> None:
        """Let what was under way wait again, before everything else."""
        self.waiting.extendleft(reversed(self.flying))
        self.flying = []


class EventPublisher:
    """Publishes the events of one process, batched, in order per partition, until they are confirmed."""

    def __init__(self, broker: ClientBroker) -> None:
        self._broker = broker
        self._lanes: dict[int, _Lane] = {}
        self._closed = False

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        """Publish *event*; returns once the broker confirmed it. Without *timeout*, waits as long as it takes.

        An event whose caller is cancelled or runs out of time before it was sent is withdrawn.

        Raises:
            BrokerUnavailableError: time ran out, and the event was not sent.
            PublishUncertainError: time ran out, and the event may have arrived.
            UnroutableError: its partition has no queue (only with a *timeout*: without one, it is sent again).
            PayloadTooLargeError: it is larger than a message may be.
            RunAbandonedError: its run was forgotten meanwhile.
        """
        (outcome,) = await self.publish_all((event,), timeout=timeout)
        if outcome is not None:
            raise outcome

    async def publish_all(self, events: Sequence[Event], *, timeout: float | None = None) -> list[Exception | None]:
        """Publish *events* in order and tell for each whether it was confirmed (``None``), or why not."""
        if not events:
            return []
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        letters = [self._post(event, deadline) for event in events]
        waiting = [letter.confirmed for letter in letters]
        try:
            await asyncio.wait(waiting, timeout=timeout)
            if not all(future.done() for future in waiting):
                await self._expire(letters)
        except asyncio.CancelledError:
            # What is under way may arrive; what is not is withdrawn, and nothing is sent again.
            for letter in letters:
                letter.confirmed.cancel()
            raise
        return [_outcome_of(letter, timeout) for letter in letters]

    def submit(self, events: Sequence[Event]) -> "asyncio.Future[None]":
        """Put *events* in line now, behind those of earlier calls; what this returns is done once all are confirmed.

        They are sent again until then. Who cancels the future withdraws what was not sent; so does the failure of one.
        """
        confirmed = [self._post(event, None).confirmed for event in events]
        return confirmed[0] if len(confirmed) == 1 else _all_of(confirmed)

    def forget(self, run_id: str, pair: Pair | None = None) -> None:
        """Send nothing more of what waits for *run_id* (of its dispatch *pair* only), and tell those who wait so."""
        for lane in self._lanes.values():
            for letter in (*lane.flying, *lane.waiting):
                event = letter.event
                if event.run_id != run_id or isinstance(event, RunOrphaned):
                    continue  # That nobody executes a dispatch remains true, whoever says it.
                if pair is None or getattr(event, "pair", None) == pair:
                    _fail(letter, RunAbandonedError(run_id))

    async def close(self, *, timeout: float = 5.0) -> None:
        """Take nothing more, and give what is there *timeout* seconds to be confirmed. Safe to call twice."""
        self._closed = True
        for lane in self._lanes.values():
            self._depart(lane)
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if not tasks:
            return

        await asyncio.wait(tasks, timeout=timeout)
        for lane in self._lanes.values():
            for letter in lane.flying:
                letter.perhaps_sent = True
            for letter in (*lane.flying, *lane.waiting):
                _fail(letter, _lost(letter, "the process stops"))
        await end(*tasks)

    def _post(self, event: Event, deadline: float | None) -> _Letter:
        if self._closed:
            raise ClientClosedError("the publisher")
        loop = asyncio.get_running_loop()
        partition = partition_of(event.run_id, self._broker.partitions)
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane(partition)

        letter = _Letter(event, _weight_of(event), loop.create_future(), deadline)
        letter.confirmed.add_done_callback(_look_at)
        lane.waiting.append(letter)
        if not isinstance(event, RunStarted):
            self._depart(lane)
        elif lane.task is None:
            self._depart_later(lane)
        return letter

    def _depart_later(self, lane: _Lane) -> None:
        if lane.departure is None:
            lane.departure = asyncio.get_running_loop().call_later(STARTED_SECONDS, self._depart, lane)

    def _depart(self, lane: _Lane) -> None:
        """Begin to empty *lane*, unless that is under way."""
        if lane.departure is not None:
            lane.departure.cancel()
            lane.departure = None
        if lane.task is None and lane.waiting:
            lane.task = asyncio.get_running_loop().create_task(
                self._empty(lane), name=f"aiki-publisher-{lane.partition}"
            )

    async def _empty(self, lane: _Lane) -> None:
        """Publish until nothing waits. The one task of its lane."""
        pause = PAUSE_FIRST
        try:
            while batch := lane.take():
                if await self._try(lane, batch):
                    pause = PAUSE_FIRST
                    if lane.may_wait and not self._closed:
                        self._depart_later(lane)
                        break
                else:
                    # No cryptography: the spread of what many processes do after the same outage.
                    await asyncio.sleep(random.uniform(0, pause))
                    pause = min(pause * 2, PAUSE_LAST)
        finally:
            lane.task = None

    async def _try(self, lane: _Lane, batch: list[_Letter]) -> bool:
        """Publish *batch* once, and tell whether to go on without a pause."""
        try:
            await self._broker.publish_events(
                lane.partition, [letter.event for letter in batch], timeout=_patience(batch)
            )
        except PublishUncertainError as error:
            for letter in batch:
                letter.perhaps_sent = True
            return _try_again(lane, error)
        except BrokerUnavailableError as error:
            return _try_again(lane, error)
        except UnroutableError as error:
            for letter in batch:
                if letter.deadline is not None:
                    _fail(letter, error)
            return _try_again(lane, error)
        except Exception as error:  # noqa: BLE001 - something in it cannot be sent; its neighbours must not wait for ever
            return _narrow_down(lane, error)

        _confirm(lane)
        return True

    async def _expire(self, letters: Iterable[_Letter]) -> None:
        """Withdraw what waits to be sent; what is under way is about to tell what became of it."""
        flying = {letter for lane in self._lanes.values() for letter in lane.flying}
        for letter in letters:
            if letter not in flying:
                letter.confirmed.cancel()

        under_way = [letter for letter in letters if not letter.confirmed.done()]
        if under_way:
            await asyncio.wait([letter.confirmed for letter in under_way], timeout=GRACE_SECONDS)
        for letter in under_way:
            letter.perhaps_sent |= letter.confirmed.cancel()


def _all_of(confirmed: Sequence[asyncio.Future[None]]) -> asyncio.Future[None]:
    """Make a future of several: done when the last of them is.

    It fails or is cancelled as soon as one is, and then what was not sent of the others is withdrawn: what
    stands behind is worth nothing without what stands before.
    """
    whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(confirmed)

    def on_one(one: asyncio.Future[None]) -> None:
        nonlocal left
        left -= 1
        if whole.done():
            return
        if one.cancelled():
            whole.cancel()
        elif (error := one.exception()) is not None:
            whole.set_exception(error)
        elif left == 0:
            whole.set_result(None)

    def on_whole(_whole: asyncio.Future[None]) -> None:
        for one in confirmed:
            one.cancel()

    for one in confirmed:
        one.add_done_callback(on_one)
    whole.add_done_callback(on_whole)
    if not confirmed:
        whole.set_result(None)
    return whole


def _patience(batch: list[_Letter]) -> float:
    """Tell how long a try may take: as long as the most pressed of its callers waits."""
    now = asyncio.get_running_loop().time()
    pressed = min((letter.deadline - now for letter in batch if letter.deadline is not None), default=TRY_SECONDS)
    return max(min(pressed, TRY_SECONDS), 0.01)


def _confirm(lane: _Lane) -> None:
    for letter in lane.flying:
        if not letter.confirmed.done():
            letter.confirmed.set_result(None)
    lane.flying = []
    lane.events_max = min(lane.events_max * 2, EVENTS_MAX)
    if lane.in_trouble:
        lane.in_trouble = False
        log.info("events.flow_again", partition=lane.partition)


def _try_again(lane: _Lane, error: Exception) -> bool:
    now = asyncio.get_running_loop().time()
    for letter in lane.flying:
        if letter.deadline is not None and letter.deadline <= now:
            _fail(letter, _lost(letter, str(error)))
    lane.put_back()
    if not lane.in_trouble:
        lane.in_trouble = True
        log.warning("events.held_back", partition=lane.partition, waiting=len(lane.waiting), error=str(error))
    return False


def _narrow_down(lane: _Lane, error: Exception) -> bool:
    """Find the event that cannot be sent: halve the batch until it is alone, and fail it then."""
    if len(lane.flying) == 1:
        _fail(lane.flying[0], error)
        lane.flying = []
    else:
        lane.events_max = max(len(lane.flying) // 2, 1)
        lane.put_back()
    return True


def _lost(letter: _Letter, detail: str) -> Exception:
    if letter.perhaps_sent:
        return PublishUncertainError(f"an event of run {letter.event.run_id} was not confirmed: {detail}")
    return BrokerUnavailableError(f"an event of run {letter.event.run_id} was not sent: {detail}")


def _fail(letter: _Letter, error: Exception) -> None:
    if not letter.confirmed.done():
        letter.confirmed.set_exception(error)


def _outcome_of(letter: _Letter, timeout: float | None) -> Exception | None:
    future = letter.confirmed
    if future.cancelled() or not future.done():
        return _lost(letter, f"no confirmation within {timeout or 0:g} s")
    error = future.exception()
    return error if error is None or isinstance(error, Exception) else RuntimeError(str(error))


def _look_at(future: asyncio.Future[None]) -> None:
    # Those who post without waiting leave nobody to retrieve it, and the log has it already.
    with suppress(asyncio.CancelledError):
        future.exception()


def _weight_of(event: Event) -> int:
    """Estimate the bytes that *event* takes in a message: its payloads, and a constant for the rest."""
    weight = 400
    for name in ("input", "payload", "result"):
        weight += len(getattr(event, name, None) or "")
    for entry in getattr(event, "entries", ()):
        weight += 300 + len(entry.payload or "")
        if entry.failure is not None:
            weight += len(entry.failure.message) + len(entry.failure.traceback or "")
    return weight
