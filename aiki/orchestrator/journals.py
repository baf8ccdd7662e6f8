"""What orchestrators read of journals: for each dispatch, so that the worker needs no read, and for lost writes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from aiki.engine.commands import Command, ExecuteRun
from aiki.engine.holding import learnt
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.orchestrator.services import Services
from aiki.ports.store import Store

__all__ = ["JournalReader", "cut", "size_of", "with_what_is_recorded"]

# Journals that are read together; and from what length on one is read by itself, a page at a time.
_JOURNALS_AT_ONCE = 100
_PAGE = 100
# Runs that wait were written when they came to rest, with all that was known of them. One that ended may have been
# ended from elsewhere, by its deadline say, and whoever opens it again goes on from what its journal has.
_MAY_BE_BEHIND = frozenset(
    {
        RunStatus.QUEUED,
        RunStatus.RUNNING,
        RunStatus.PAUSED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.DEAD_LETTERED,
    }
)

# An entry without its payload, as JSON.
_BYTES_PER_ENTRY = 250


class JournalReader:
    """Fills the journals in that commands leave the engine without, up to a size; the rest is asked for in pages."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._patience = services.patience
        self._entries_max = services.settings.journal_entries
        self._bytes_max = services.settings.journal_bytes

    async def attach(self, commands: Sequence[Command], runs: dict[str, RunState]) -> Sequence[Command]:
        """Give every ``ExecuteRun`` among *commands* what is recorded of its run; *runs* are as they were stored."""
        wanted = [runs[c.run_id] for c in commands if isinstance(c, ExecuteRun) and c.base_seq and c.run_id in runs]
        if not wanted:
            return commands
        journals = await self._read(wanted)
        return [
            replace(command, journal=self._first_part(command, journals.get(command.run_id, ())))
            if isinstance(command, ExecuteRun) and command.base_seq
            else command
            for command in commands
        ]

    async def _read(self, runs: Sequence[RunState]) -> dict[str, Sequence[JournalEntry]]:
        short = [run for run in runs if run.base_seq <= self._entries_max]
        found = dict(await self._patience.insist(lambda: self._store.journals(short))) if short else {}
        for run in runs:
            if run.base_seq > self._entries_max:
                found[run.run_id] = await self._read_beginning(run)
        return found

    async def _read_beginning(self, run: RunState) -> Sequence[JournalEntry]:
        return await self._patience.insist(lambda: self._store.journal(run, limit=self._entries_max))

    def _first_part(self, command: ExecuteRun, entries: Sequence[JournalEntry]) -> tuple[JournalEntry, ...]:
        # What the holder adds after this dispatch was decided is not part of what the dispatch starts from.
        known = [entry for entry in entries if entry.seq <= command.base_seq]
        return tuple(cut(known, entries_max=self._entries_max, bytes_max=self._bytes_max))


async def with_what_is_recorded(store: Store, runs: Collection[RunState]) -> Mapping[str, RunState]:
    """Let *runs*, fresh from the store, take over what is in their journals and not in themselves, by run id.

    The journal is written before the run (rule 6). Whoever had the run to write next may have been ended in
    between; the events that bring it about again come again, unless the broker lost its disk. An entry that arrives
    while this reads is left to the next look: the run does not reckon with it yet.
    """
    there = {run.run_id: run for run in runs}
    behind = [run for run in runs if _may_be_behind(run)]
    short = [run for run in behind if run.last_seq <= _PAGE]
    for start in range(0, len(short), _JOURNALS_AT_ONCE):
        some = short[start : start + _JOURNALS_AT_ONCE]
        journals = await store.journals(some)
        for run in some:
            there[run.run_id] = learnt(run, _unknown(run, journals[run.run_id]))
    for run in behind:
        if run.last_seq > _PAGE:
            there[run.run_id] = await _read_on(store, run)
    return there


def _may_be_behind(run: RunState) -> bool:
    return run.status in _MAY_BE_BEHIND and run.last_seq > _known_of(run)


def _known_of(run: RunState) -> int:
    return max(run.learnt_seq, run.base_seq)  # A dispatch writes the run with everything up to its base.


def _unknown(run: RunState, entries: Sequence[JournalEntry]) -> tuple[JournalEntry, ...]:
    return tuple(entry for entry in entries if _known_of(run) < entry.seq <= run.last_seq)


async def _read_on(store: Store, run: RunState) -> RunState:
    for seq in range(_known_of(run), run.last_seq, _PAGE):
        run = learnt(run, _unknown(run, await store.journal(run, after_seq=seq, limit=_PAGE)))
    return run


def cut(entries: Sequence[JournalEntry], *, entries_max: int, bytes_max: int) -> Sequence[JournalEntry]:
    """Take as many of *entries* as fit; possibly none."""
    size = 0
    for index, entry in enumerate(entries[:entries_max]):
        size += size_of(entry)
        if size > bytes_max:
            return entries[:index]
    return entries[:entries_max]


def size_of(entry: JournalEntry) -> int:
    """Estimate how long an entry is as JSON."""
    failure = entry.failure
    size = _BYTES_PER_ENTRY + len(entry.payload or "")
    while failure is not None:
        size += len(failure.message) + len(failure.traceback or "")
        failure = failure.cause
    return size
