"""The journals in MongoDB: one document an entry, insert only.

A commit that is cut short may keep an entry and not the one before it: places that were taken are
settled after free ones were filled. So what counts of a journal ends at its first gap. Every entry
knows how far its journal was whole when it was written (``whole``), so a gap is looked for in what
the last commit wrote, and never in all that came before.
"""

from collections.abc import Collection as AnyOf
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from operator import attrgetter

from pymongo import DESCENDING, DeleteMany
from pymongo.errors import BulkWriteError

from aiki.adapters.store.mongodb.driver import Collection, aggregate, duplicates
from aiki.adapters.store.mongodb.layout import entry_place, entry_range, journal_document
from aiki.adapters.store.rules import Conflict, base_of, settle
from aiki.codec.documents import Document, entry_from_document, text_of
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.ports.store import RunChange

__all__ = ["MongoJournal"]

# Each run of a query is a range of the index. Some hundreds would be planned longer than they take.
RUNS_AT_ONCE = 100

# A place changes hands once an epoch. To lose it this often in a row means that others are far ahead of us.
REPLACE_TRIES = 5


class MongoJournal:
    """The entries of all runs. Their ids are made of run, incarnation and number, and so guard each other."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def append(self, changes: Sequence[RunChange]) -> set[str]:
        """Keep the entries of *changes*; tell the runs whose entries found their places rightly taken."""
        owners: list[tuple[RunChange, JournalEntry]] = []
        documents: list[Document] = []
        for change in changes:
            if change.journal:
                prefix = entry_place(change.after.run_id, change.after.incarnation)
                owners += [(change, entry) for entry in change.journal]
                whole = 0 if change.before is None else change.before.last_seq
                documents += [
                    journal_document(change.after, entry, prefix=prefix, whole=whole) for entry in change.journal
                ]
        if not documents:
            return set()

        try:
            await self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            taken = duplicates(error)
            return await self._settle([(*owners[index], documents[index]) for index in taken])
        return set()

    async def _settle(self, taken: Sequence[tuple[RunChange, JournalEntry, Document]]) -> set[str]:
        """Find out what is in the places that were taken, and tell the runs for which it is right there."""
        places = [document["_id"] for _, _, document in taken]
        runs = list({document["run"] for _, _, document in taken})
        found = await self._collection.find({"run": {"$in": runs}, "_id": {"$in": places}}).to_list(None)
        there = {document["_id"]: document for document in found}

        stale: set[str] = set()
        for change, entry, document in taken:
            run_id = change.after.run_id
            if run_id not in stale and not await self._take_place(
                entry, document, there.get(document["_id"]), base_seq=base_of(change)
            ):
                stale.add(run_id)
        return stale

    async def _take_place(
        self, entry: JournalEntry, document: Document, there: Document | None, *, base_seq: int
    ) -> bool:
        place = {"_id": document["_id"], "run": document["run"]}
        for _ in range(REPLACE_TRIES):
            if there is None:  # It was there a moment ago: an expiring run takes its journal along.
                return False
            match settle(entry_from_document(there), entry, base_seq=base_seq):
                case Conflict.KEPT:
                    return True
                case Conflict.STALE:
                    return False
            # Nothing but a later epoch ever replaces an entry, so an unchanged epoch is an unchanged entry.
            replaced = await self._collection.replace_one({**place, "epoch": there["epoch"]}, document)
            if replaced.matched_count:
                return True
            there = await self._collection.find_one(place)
        return False

    async def read(self, run: RunState, *, after_seq: int = 0, limit: int | None = None) -> list[JournalEntry]:
        """Read the entries of *run* that count, in order."""
        if limit == 0:
            return []
        selected = _entries_of(run, after_seq=after_seq)
        found = await self._collection.find(selected).sort("_id", 1).limit(limit or 0).to_list(None)
        return _gapless([entry_from_document(document) for document in found], after_seq=after_seq)

    async def read_all(self, runs: AnyOf[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        """Read the whole journals of *runs*."""
        journals: dict[str, list[JournalEntry]] = {run.run_id: [] for run in runs}
        for some in _in_batches([run for run in runs if _may_have_journal(run)]):
            ranges = [_entries_of(run) for run in some]
            for document in await self._collection.find({"$or": ranges}).to_list(None):
                journals[text_of(document["run"])].append(entry_from_document(document))
        return {
            run_id: _gapless(sorted(journal, key=attrgetter("seq")), after_seq=0)
            for run_id, journal in journals.items()
        }

    async def last_seqs(self, runs: Sequence[RunState]) -> Mapping[str, int]:
        """Tell how far the journals of *runs* go without a gap; runs without entries are missing.

        Up to ``base_seq`` a journal has no gaps, so it is enough to look from there on.
        """
        lasts: dict[str, int] = {}
        for some in _in_batches([run for run in runs if _may_have_journal(run)]):
            tails = await self._tails(some)
            doubtful = [tail for tail in tails if tail.whole + 1 < tail.seq]
            lasts |= {tail.run.run_id: tail.seq for tail in tails}
            lasts |= await self._look_closer(doubtful)
        return lasts

    async def _tails(self, runs: Sequence[RunState]) -> Sequence["_Tail"]:
        """Find the last entry of each of *runs*, from the end of its journal: however long that is."""
        first, *others = [_last_of(run) for run in runs]
        unions = [{"$unionWith": {"coll": self._collection.name, "pipeline": other}} for other in others]
        found = await aggregate(self._collection, [*first, *unions])
        by_id = {run.run_id: run for run in runs}
        return [_tail_of(by_id[text_of(document["run"])], document) for document in found]

    async def _look_closer(self, tails: Sequence["_Tail"]) -> Mapping[str, int]:
        """Find the gaps, if there are any, in what the last commits of these journals wrote."""
        if not tails:
            return {}
        parts = [_entries_of(tail.run, after_seq=tail.whole) for tail in tails]
        found = await aggregate(
            self._collection, [{"$match": {"$or": parts}}, {"$group": {"_id": "$run", "seqs": {"$push": "$seq"}}}]
        )
        there = {text_of(document["_id"]): frozenset(map(int, document["seqs"])) for document in found}
        # What was there a moment ago may be gone: an expiring run takes its journal along.
        return {tail.run.run_id: _end_of(there.get(tail.run.run_id, ()), after_seq=tail.whole) for tail in tails}

    async def remove(self, incarnations: Sequence[tuple[str, str]]) -> None:
        """Remove all entries of runs, given by id and incarnation."""
        if incarnations:
            removals = [DeleteMany(entry_range(run_id, incarnation)) for run_id, incarnation in incarnations]
            await self._collection.bulk_write(removals, ordered=False)


@dataclass(frozen=True, slots=True)
class _Tail:
    """Where a journal seems to end, and how far it is known to be whole."""

    run: RunState
    seq: int
    whole: int


def _tail_of(run: RunState, document: Document) -> _Tail:
    return _Tail(run, int(document["seq"]), max(int(document["whole"]), run.base_seq))


def _last_of(run: RunState) -> list[Document]:
    return [
        {"$match": _entries_of(run, after_seq=run.base_seq - 1)},
        {"$sort": {"_id": DESCENDING}},
        {"$limit": 1},
        {"$project": {"_id": False, "run": True, "seq": True, "whole": True}},
    ]


def _entries_of(run: RunState, *, after_seq: int = 0) -> Document:
    """Select what counts: what an older epoch left above the base of the current dispatch does not (rule 6)."""
    counting = [{"seq": {"$lte": run.base_seq}}, {"epoch": run.pair.epoch}]
    return {**entry_range(run.run_id, run.incarnation, after_seq=after_seq), "$or": counting}


def _gapless(entries: Iterable[JournalEntry], *, after_seq: int) -> list[JournalEntry]:
    """Take *entries* up to the first that is missing."""
    numbers = count(after_seq + 1)
    return list(takewhile(lambda entry: entry.seq == next(numbers), entries))


def _end_of(seqs: AnyOf[int], *, after_seq: int) -> int:
    """Tell the last number before the first that is missing."""
    return next(seq for seq in count(after_seq) if seq + 1 not in seqs)


def _may_have_journal(run: RunState) -> bool:
    # A run that was never dispatched has had no holder that could have learnt anything.
    return run.pair.epoch > 0 or run.base_seq > 0


def _in_batches(runs: Sequence[RunState]) -> Sequence[Sequence[RunState]]:
    return [runs[start : start + RUNS_AT_ONCE] for start in range(0, len(runs), RUNS_AT_ONCE)]
