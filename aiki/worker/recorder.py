"""The recorder: what a run has learnt becomes journal entries, numbered and stamped, and events that say so.

One batch is under way at a time, and what comes meanwhile waits for the next. The
outcome of an operation that was cancelled in time gets no entry (rule 14).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from aiki.engine.commands import ExecuteRun
from aiki.engine.events import Event, JournalAppended
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.worker.facts import Fact
from aiki.worker.host import Host
from aiki.worker.operations import TaskOperation
from aiki.worker.voice import Voice

__all__ = ["Batch", "Recorder"]

# What one event carries at most, beside a last entry of any size: far below what a broker takes.
_EVENT_CHARACTERS_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes out together."""

    events: Sequence[Event]
    entries: Sequence[JournalEntry]
    facts: Sequence[Fact]


class Recorder:
    """Numbers and stamps what was learnt."""

    def __init__(self, command: ExecuteRun, host: Host, entries: Sequence[JournalEntry], *, began_at: datetime) -> None:
        self.last_seq = len(entries)
        self._voice = Voice(command, host)
        self._epoch = command.pair.epoch
        self._worker = host.worker
        self._last_at = entries[-1].at if entries else began_at
        self._facts: deque[Fact] = deque()
        self._dropped: list[Fact] = []
        self._announcements: list[Event] = []

    @property
    def has_something(self) -> bool:
        """Whether something waits to be published."""
        return bool(self._facts or self._announcements)

    @property
    def has_facts(self) -> bool:
        """Whether something that was learnt waits to be recorded."""
        return bool(self._facts)

    def learn(self, fact: Fact) -> None:
        """Take note of *fact*; it goes out with the next batch."""
        self._facts.append(fact)

    def announce(self, *events: Event) -> None:
        """Send *events* with the next batch, behind its entries."""
        self._announcements.extend(events)

    def keep_only(self, kind: EntryKind) -> None:
        """Forget everything that was learnt and does not matter for a run that is over."""
        self._facts = deque(fact for fact in self._facts if fact.kind is kind)

    def take_dropped(self) -> Sequence[Fact]:
        """Give the facts that nobody wanted to know any more when their batch was made."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def take_batch(self, now: datetime) -> Batch:
        """Make the next batch of what was learnt."""
        facts: list[Fact] = []
        while self._facts and not (facts and self._facts[0].must_be_first):
            fact = self._facts.popleft()
            (self._dropped if fact.is_void else facts).append(fact)
        entries = [self._record(fact) for fact in facts]
        events = [*self._events(facts, entries, now), *self._announcements]
        self._announcements = []
        return Batch(events, entries, facts)

    def _record(self, fact: Fact) -> JournalEntry:
        self.last_seq += 1
        # Stamps never go back within a run, whatever the clocks of its workers say.
        self._last_at = max(self._last_at, fact.at)
        return fact.entry(self.last_seq, self._epoch, self._last_at, self._worker)

    def _events(self, facts: Sequence[Fact], entries: Sequence[JournalEntry], now: datetime) -> Iterator[Event]:
        together: list[JournalEntry] = []
        size = 0
        for fact, entry in zip(facts, entries, strict=True):
            scheduled = entry.kind is EntryKind.TASK_SCHEDULED
            if together and (scheduled or size > _EVENT_CHARACTERS_MAX):
                yield self._voice.says(JournalAppended, now, entries=tuple(together))
                together, size = [], 0
            if scheduled:
                assert isinstance(fact.operation, TaskOperation)
                assert entry.source is not None
                yield self._voice.schedules(now, fact.operation, entry, task_id=entry.source)
            else:
                together.append(entry)
                size += len(entry.payload or "") + len(entry.failure.traceback or "" if entry.failure else "")
        if together:
            yield self._voice.says(JournalAppended, now, entries=tuple(together))
