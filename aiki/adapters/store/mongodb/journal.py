"""The journals in MongoDB: one document an entry, insert only."""

from collections.abc import Collection as AnyOf
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import DeleteMany
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
                documents += [journal_document(change.after, entry, prefix=prefix) for entry in change.journal]
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
        selected = {**entry_range(run.run_id, run.incarnation, after_seq=after_seq), **_counting(run)}
        found = await self._collection.find(selected).sort("_id", 1).limit(limit or 0).to_list(None)
        return [entry_from_document(document) for document in found]

    async def read_all(self, runs: AnyOf[RunState]) -> Mapping[str, Sequence[JournalEntry]]:
        """Read the whole journals of *runs*."""
        journals: dict[str, list[JournalEntry]] = {run.run_id: [] for run in runs}
        for some in _in_batches([run for run in runs if _may_have_journal(run)]):
            ranges = [{**entry_range(run.run_id, run.incarnation), **_counting(run)} for run in some]
            for document in await self._collection.find({"$or": ranges}).to_list(None):
                journals[text_of(document["run"])].append(entry_from_document(document))
        for journal in journals.values():
            journal.sort(key=lambda entry: entry.seq)
        return journals

    async def last_seqs(self, runs: Sequence[RunState]) -> Mapping[str, int]:
        """Tell how far the journals of *runs* go; runs without entries are missing.

        Up to ``base_seq`` a journal has no gaps, so it is enough to look from there on.
        """
        lasts: dict[str, int] = {}
        for some in _in_batches([run for run in runs if _may_have_journal(run)]):
            ranges = [
                {**entry_range(run.run_id, run.incarnation, after_seq=run.base_seq - 1), **_counting(run)}
                for run in some
            ]
            found = await aggregate(
                self._collection, [{"$match": {"$or": ranges}}, {"$group": {"_id": "$run", "seq": {"$max": "$seq"}}}]
            )
            lasts |= {text_of(document["_id"]): int(document["seq"]) for document in found}
        return lasts

    async def remove(self, incarnations: Sequence[tuple[str, str]]) -> None:
        """Remove all entries of runs, given by id and incarnation."""
        if incarnations:
            removals = [DeleteMany(entry_range(run_id, incarnation)) for run_id, incarnation in incarnations]
            await self._collection.bulk_write(removals, ordered=False)


def _counting(run: RunState) -> dict[str, Any]:
    """Select what counts: what an older epoch left above the base of the current dispatch does not (rule 6)."""
    return {"$or": [{"seq": {"$lte": run.base_seq}}, {"epoch": run.pair.epoch}]}


def _may_have_journal(run: RunState) -> bool:
    # A run that was never dispatched has had no holder that could have learnt anything.
    return run.pair.epoch > 0 or run.base_seq > 0


def _in_batches(runs: Sequence[RunState]) -> Sequence[Sequence[RunState]]:
    return [runs[start : start + RUNS_AT_ONCE] for start in range(0, len(runs), RUNS_AT_ONCE)]
