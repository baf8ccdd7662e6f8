"""One partition: its events, in order, made into stored runs and sent commands.

What arrived is one batch: grouped by run, decided, stored, sent, and only then
acknowledged. A crash at any point brings the batch back, and every step may be
done again without harm. So the events that are not acknowledged yet are the
outbox, and there is no other.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from aiki.codec.messages import DEAD_LETTER_BYTES_MAX, dead_letter_of, encode_events
from aiki.engine.changing import replace
from aiki.engine.commands import Command, ParkDeadLetter, SendEvent
from aiki.engine.events import Event, JournalAppended, LeaseRenewed, RunRequested, RunStarted
from aiki.engine.ids import partition_of
from aiki.engine.state import RunState
from aiki.errors import BrokerError, StoreError, UndecodableError
from aiki.observability import get_logger
from aiki.orchestrator.cache import RunCache
from aiki.orchestrator.committer import Committer
from aiki.orchestrator.fold import Folded, fold
from aiki.orchestrator.journals import JournalReader, with_what_is_recorded
from aiki.orchestrator.outbox import Outbox
from aiki.orchestrator.services import Services
from aiki.orchestrator.timers import Timers
from aiki.ports.broker import Delivery, Subscription
from broker_topology import partition_queue

__all__ = ["PartitionContestedError", "PartitionOwner"]

log = get_logger(__name__)

# Each lost race means that somebody else moved the same run in between. Once happens when a partition changes
# hands; five times in a row means that the other one is its owner: let the deliveries go there.
COMMIT_TRIES = 5

Delivered = Delivery[tuple[Event, ...]]

# What a run says on its way. Nobody waits for what follows from it, so that it may wait for what is said next.
_PASSING = (RunStarted, JournalAppended, LeaseRenewed)


class PartitionContestedError(BrokerError):
    """Somebody else keeps moving the runs of this partition; what was delivered here goes back."""

    def __init__(self, partition: int, *, runs: Collection[str]) -> None:
        super().__init__(
            f"{len(runs)} runs of partition {partition} were moved by somebody else {COMMIT_TRIES} times in a row",
            hint="nothing is lost: their events are delivered again, to whoever owns the partition",
        )
        self.partition = partition


class PartitionOwner:
    """Moves the runs of one partition. Used by one task at a time."""

    def __init__(self, partition: int, services: Services, *, committer: Committer, timers: Timers) -> None:
        self.partition = partition
        self._services = services
        self._committer = committer
        self._timers = timers
        self._journals = JournalReader(services)
        self._unsure_of = 0
        """How many of the next messages may have been with somebody else before, whatever their flags say."""
        self._cache = RunCache(services.settings.cache_bytes // services.broker.partitions)
        self._outbox = Outbox(services)

    async def subscribe(self) -> Subscription[tuple[Event, ...]]:
        """Stand in line for the partition, knowing nothing of its runs: others may have moved them (rule 5)."""
        self._cache.clear()
        self._unsure_of = self._services.settings.prefetch
        subscription = await self._services.broker.consume_events(
            self.partition, prefetch=self._services.settings.prefetch
        )
        self._timers.reload()
        return subscription

    def split(self, deliveries: Sequence[Delivered]) -> Iterator[Sequence[Delivered]]:
        """Part what has arrived, so that no batch is much longer than the settings say."""
        part: list[Delivered] = []
        size = 0
        for delivery in deliveries:
            part.append(delivery)
            size += len(delivery.body)
            if size >= self._services.settings.batch_events:
                yield part
                part, size = [], 0
        if part:
            yield part

    def may_wait(self, deliveries: Sequence[Delivered]) -> bool:
        """Tell whether nobody waits for what follows from *deliveries*: then what comes next is stored with them."""
        return all(isinstance(event, _PASSING) for delivery in deliveries for event in delivery.body)

    async def handle(self, deliveries: Sequence[Delivered]) -> None:
        """Decide, store and send all that follows from *deliveries*; they may be acknowledged when this returns.

        Raises:
            BrokerError: what was sent is not sure to have arrived, or somebody else owns the partition.
        """
        redelivered = any(delivery.redelivered for delivery in deliveries)
        if redelivered:
            self._cache.clear()  # Somebody else had these, and may have moved their runs since we read them (rule 5).
        # A flag may be lost with the server that kept it. What an owner that is gone had in hand comes first.
        again = redelivered or self._unsure_of > 0
        self._unsure_of = max(self._unsure_of - len(deliveries), 0)
        groups = self._grouped(deliveries)
        strays = self._strays(groups)
        settled = await self._settle(groups, again=again, presuming=not redelivered)
        runs = {folded.run_id: folded.run for folded in settled if folded.run is not None}
        commands = [*strays, *(command for folded in settled for command in folded.commands)]
        await self._outbox.send(await self._journals.attach(commands, runs))
        self._remember(settled)

        stats = self._services.stats
        stats.batches += 1
        stats.messages += len(deliveries)
        stats.events += sum(len(delivery.body) for delivery in deliveries)

    def _grouped(self, deliveries: Iterable[Delivered]) -> dict[str, list[Event]]:
        """Put the events of each run together, in order."""
        groups: dict[str, list[Event]] = {}
        for delivery in deliveries:
            for event in delivery.body:
                groups.setdefault(event.run_id, []).append(event)
        return groups

    def _strays(self, groups: dict[str, list[Event]]) -> Sequence[Command]:
        """Take runs of other partitions out of *groups*; their events are sent where they belong."""
        strays: list[Command] = []
        for run_id in list(groups):
            if partition_of(run_id, self._services.broker.partitions) != self.partition:
                strays += [SendEvent(event=event) for event in groups.pop(run_id)]
        if strays:
            self._services.stats.events_forwarded += len(strays)
            log.warning("events.misplaced", partition=self.partition, count=len(strays))
        return strays

    async def _settle(self, groups: Mapping[str, list[Event]], *, again: bool, presuming: bool) -> Sequence[Folded]:
        """Decide and store, again with fresh runs where somebody else was faster, until nothing is stale."""
        settled: list[Folded] = []
        left = groups
        for _ in range(COMMIT_TRIES):
            folded = await self._decide(left, again=again, presuming=presuming)
            kept, stale = await self._commit(folded)
            settled += kept
            if not stale:
                return settled
            self._services.stats.commits_stale += len(stale)
            self._cache.drop(stale)
            left = {run_id: groups[run_id] for run_id in stale}
            # What is stale may be our own write, of which we did not hear that it worked.
            again, presuming = True, False
        raise PartitionContestedError(self.partition, runs=left)

    async def _decide(self, groups: Mapping[str, list[Event]], *, again: bool, presuming: bool) -> Sequence[Folded]:
        known = {run_id: self._cache.get(run_id) for run_id in groups}
        missing = {run_id for run_id, run in known.items() if run is None}
        # Nobody has asked for these before, as far as one can tell. Where somebody has, the write of the run is
        # stale, and it is decided again with what is stored. So the way of a new run goes without a read.
        presumed_new = {run_id for run_id in missing if presuming and _asks_for_a_new_run(groups[run_id][0])}
        loaded = missing - presumed_new
        known.update(await self._load(loaded))
        # What is in the cache was dealt with here before, and all that followed from it was sent.
        unsent = missing if again else frozenset[str]()
        folded = self._fold(groups, known, unsent)

        # What is refused may fit the run as it is stored by now: only a fresh read can tell (rule 5).
        doubtful = {one.run_id for one in folded if one.is_doubtful} - loaded
        if doubtful:
            fresh = await self._load(doubtful)
            refolded = self._fold({run_id: groups[run_id] for run_id in doubtful}, fresh, unsent)
            folded = [*(one for one in folded if one.run_id not in fresh), *refolded]
        return [self._judged(one) for one in folded]

    async def _load(self, run_ids: Collection[str]) -> Mapping[str, RunState | None]:
        if not run_ids:
            return {}
        store, patience = self._services.store, self._services.patience
        stored = await patience.insist(lambda: store.load(run_ids))
        found = await patience.insist(lambda: with_what_is_recorded(store, stored.values()))
        self._services.stats.runs_loaded += len(run_ids)
        return {run_id: found.get(run_id) for run_id in run_ids}

    def _fold(
        self, groups: Mapping[str, list[Event]], known: Mapping[str, RunState | None], unsent: Collection[str]
    ) -> list[Folded]:
        """Decide about each run; the last dispatches of *unsent* may not have been sent."""
        now, retention = self._services.clock.now(), self._services.settings.retention
        return [
            fold(run_id, known[run_id], events, now=now, retention=retention, again=run_id in unsent)
            for run_id, events in groups.items()
        ]

    def _judged(self, folded: Folded) -> Folded:
        """Take note of what was refused, and park what could not be applied: both are sure by now."""
        if folded.refused:
            self._services.stats.events_refused += folded.refused
            log.debug("events.refused", run_id=folded.run_id, count=folded.refused, known=folded.run is not None)
        if not (folded.failed or folded.parked):
            return folded
        letters = [self._letter(event, error) for event, error in folded.failed]
        letters += [self._parked(event, "the inbox of the run is full", detail) for event, detail in folded.parked]
        return replace(folded, commands=[*folded.commands, *letters])

    def _letter(self, event: Event, error: Exception) -> ParkDeadLetter:
        log.error("event.cannot_be_applied", run_id=event.run_id, event_id=event.id, exc_info=error)
        detail = f"{event.type} for run {event.run_id}: {type(error).__name__}: {error}"
        return self._parked(event, "the event cannot be applied", detail)

    def _parked(self, event: Event, reason: str, detail: str) -> ParkDeadLetter:
        """Keep *event* as the message that it may have come in: redriven, it comes again, for whoever owns us then."""
        self._services.stats.events_parked += 1
        log.warning("event.parked", run_id=event.run_id, event_type=event.type, event_id=event.id, reason=reason)
        letter = dead_letter_of(
            UndecodableError(reason, detail),
            origin=partition_queue(self.partition),
            # Written anew, what just fitted into a message may be longer than one: moments have short forms.
            body=encode_events((event,), bytes_max=DEAD_LETTER_BYTES_MAX),
            at=self._services.clock.now(),
        )
        return ParkDeadLetter(letter=letter)

    async def _commit(self, folded: Sequence[Folded]) -> tuple[Sequence[Folded], Collection[str]]:
        """Store what changed; tell what is kept, and which runs were stale."""
        changes = [one.change for one in folded if one.change is not None]
        if not changes:
            return folded, ()
        try:
            stale = await self._services.patience.insist(lambda: self._committer.commit(changes))
        except StoreError as error:
            return await self._commit_each(folded, error)

        mine = {change.after.run_id for change in changes if change.after.run_id in stale}
        stats = self._services.stats
        stats.runs_written += sum(change.writes_run for change in changes)
        stats.entries_written += sum(len(change.journal) for change in changes)
        return [one for one in folded if one.run_id not in mine], mine

    async def _commit_each(
        self, folded: Sequence[Folded], error: StoreError
    ) -> tuple[Sequence[Folded], Collection[str]]:
        """Find the change that the store will never take, and park its events; the others are kept."""
        if len(folded) == 1:
            letters = [self._letter(event, error) for event in folded[0].events]
            self._cache.drop((folded[0].run_id,))
            return [replace(folded[0], run=None, change=None, commands=letters)], ()

        kept: list[Folded] = []
        stale: set[str] = set()
        for one in folded:
            kept_one, stale_one = await self._commit((one,))
            kept += kept_one
            stale.update(stale_one)
        return kept, stale

    def _remember(self, settled: Sequence[Folded]) -> None:
        for folded in settled:
            if folded.run is None:
                continue
            self._cache.put(folded.run)
            if folded.change is not None and folded.change.writes_run:
                self._timers.follow(folded.run, armed=folded.is_armed)


def _asks_for_a_new_run(event: Event) -> bool:
    """Tell whether the run that *event* asks for has a name that was made for this request alone."""
    return isinstance(event, RunRequested) and event.key is None and event.parent is None
