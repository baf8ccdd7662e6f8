"""The runs in MongoDB: one document each, every write guarded by what was read."""

from collections.abc import Collection as AnyOf
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError

from aiki.adapters.store.mongodb.driver import Collection, aggregate, duplicates
from aiki.adapters.store.mongodb.layout import run_document
from aiki.adapters.store.pages import Cursor
from aiki.codec.documents import Document, run_from_document, storable_text, text_of
from aiki.engine.queries import RunFilter
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange

__all__ = ["MongoRuns"]


class MongoRuns:
    """The documents of all runs.

    The revision and the incarnation in the filter let a single one of two racing writes match. A write never
    creates what it expects to be there, so nothing brings an expired run back.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def write(self, changes: Sequence[RunChange]) -> set[str]:
        """Write the runs of *changes*; tell whose was stale."""
        if not changes:
            return set()
        new = [change.after for change in changes if change.before is None]
        known = [(change.before, change.after) for change in changes if change.before is not None]
        # In this order, so that the index of a failed insert is its index in `new`.
        writes: list[InsertOne[Document] | ReplaceOne[Document]]
        writes = [*[InsertOne(run_document(after)) for after in new], *[_replacement(*change) for change in known]]

        taken: Sequence[int] = ()
        try:
            matched = (await self._collection.bulk_write(writes, ordered=False)).matched_count
        except BulkWriteError as error:
            taken = duplicates(error)
            matched = int(error.details["nMatched"])

        doubtful = [new[index] for index in taken]
        if matched < len(known):  # The server counts what matched and does not say which.
            doubtful += [after for _, after in known]
        return await self._unwritten(doubtful)

    async def _unwritten(self, runs: Sequence[RunState]) -> set[str]:
        """Tell which of *runs* are not what is stored.

        Somebody may have gone on from what we wrote just now, and then it looks as if we had not. To be
        called stale does no harm: whoever hears it reads the run again and finds its event applied.
        """
        if not runs:
            return set()
        ids = [storable_text(run.run_id) for run in runs]
        found = await self._collection.find({"_id": {"$in": ids}}).to_list(None)
        there = {text_of(document["_id"]): document for document in found}
        return {run.run_id for run in runs if not _is_stored(run, there.get(run.run_id))}

    async def load(self, run_ids: AnyOf[str]) -> list[RunState]:
        """Read runs by id, in any order."""
        return await self._read({"_id": {"$in": [storable_text(run_id) for run_id in run_ids]}})

    async def due(self, ours: AnyOf[int], partitions: int, *, before: datetime, limit: int) -> list[RunState]:
        """Find the runs of *ours* that are due, the earliest first."""
        if not ours:
            return []
        selected = {"due": {"$lt": before}, **_in_partitions(ours, partitions)}
        return await self._read(selected, sort=[("due", ASCENDING)], limit=limit)

    async def unfinished(self, ours: AnyOf[int], partitions: int, *, after: str | None, limit: int) -> list[RunState]:
        """Find the runs of *ours* that are not final, by id."""
        if not ours:
            return []
        selected: Document = {"open": True, **_in_partitions(ours, partitions)}
        if after is not None:
            selected["_id"] = {"$gt": storable_text(after)}
        # Left to itself, the planner goes by id, through what has finished and what belongs to others.
        return await self._read(selected, sort=[("_id", ASCENDING)], limit=limit, index="open")

    async def find(self, wanted: RunFilter, *, limit: int, cursor: str | None) -> list[RunState]:
        """List runs, newest first."""
        conditions = _conditions(wanted)
        if cursor is not None:
            last = Cursor.load(cursor)
            conditions.append({"created": {"$lte": last.at}})
            conditions.append({"$or": [{"created": {"$lt": last.at}}, {"_id": {"$lt": storable_text(last.id)}}]})
        selected = {"$and": conditions} if conditions else {}
        return await self._read(selected, sort=[("created", DESCENDING), ("_id", DESCENDING)], limit=limit)

    async def count(self) -> Mapping[str, Mapping[str, int]]:
        """Count runs by workflow and status, from the index alone."""
        found = await aggregate(
            self._collection,
            [
                {"$sort": {"workflow": ASCENDING, "status": ASCENDING}},
                {"$group": {"_id": {"workflow": "$workflow", "status": "$status"}, "number": {"$sum": 1}}},
            ],
        )
        counts: dict[str, dict[str, int]] = {}
        for group in sorted(found, key=lambda group: (str(group["_id"]["workflow"]), str(group["_id"]["status"]))):
            counts.setdefault(text_of(group["_id"]["workflow"]), {})[group["_id"]["status"]] = int(group["number"])
        return counts

    async def mark_expiring(self, *, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Mark runs that have expired, so that nobody writes them any more; tell them with their incarnations.

        Those that an earlier call marked and did not come to remove are among them.
        """
        has_expired = {"expires": {"$lt": now}}
        expired = await self._collection.find(has_expired, {"expiring": 1}, limit=limit).to_list(None)
        ids = [document["_id"] for document in expired]
        if unmarked := [document["_id"] for document in expired if not document.get("expiring")]:
            # Guarded by what it is about: a run that somebody has opened again meanwhile does not expire.
            await self._collection.update_many(
                {"_id": {"$in": unmarked}, **has_expired, "expiring": {"$ne": True}},
                {"$set": {"expiring": True}, "$inc": {"rev": 1}},
            )
        marked = await self._collection.find({"_id": {"$in": ids}, "expiring": True}, {"inc": 1}).to_list(None)
        return [(text_of(document["_id"]), text_of(document["inc"])) for document in marked]

    async def remove(self, incarnations: Sequence[tuple[str, str]]) -> int:
        """Remove runs that are marked as expiring; tell how many."""
        if not incarnations:
            return 0
        ids, incs = ([storable_text(one) for one in ones] for ones in zip(*incarnations, strict=True))
        removed = await self._collection.delete_many({"_id": {"$in": ids}, "inc": {"$in": incs}, "expiring": True})
        return int(removed.deleted_count)

    async def _read(
        self,
        selected: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        index: str | None = None,
    ) -> list[RunState]:
        cursor = self._collection.find(selected, limit=limit, hint=index)
        if sort:
            cursor = cursor.sort(list(sort))
        return [_run_of(document) for document in await cursor.to_list(None)]


def _replacement(before: RunState, after: RunState) -> ReplaceOne[Document]:
    document = run_document(after)
    guard = {"_id": document["_id"], "rev": before.revision, "inc": storable_text(before.incarnation)}
    return ReplaceOne(guard, document)


def _run_of(document: Document) -> RunState:
    document["run"] = document["_id"]
    return run_from_document(document)


def _is_stored(run: RunState, document: Document | None) -> bool:
    return document is not None and document == run_document(run)


def _in_partitions(ours: AnyOf[int], partitions: int) -> Document:
    if len(set(ours)) == partitions:
        return {}
    return {"$or": [{"slot": {"$mod": [partitions, partition]}} for partition in ours]}


def _conditions(wanted: RunFilter) -> list[Document]:
    conditions: list[Document] = []
    if wanted.workflow is not None:
        conditions.append({"workflow": storable_text(wanted.workflow)})
    if wanted.version is not None:
        conditions.append({"version": storable_text(wanted.version)})
    # With every status named, one index serves a workflow with and without statuses, newest first.
    statuses = wanted.statuses or (tuple(RunStatus) if wanted.workflow is not None else ())
    if statuses:
        conditions.append({"status": {"$in": [str(status) for status in statuses]}})
    if wanted.tag is not None:
        conditions.append({"tags": storable_text(wanted.tag)})
    if wanted.created_after is not None:
        conditions.append({"created": {"$gt": wanted.created_after}})
    if wanted.created_before is not None:
        conditions.append({"created": {"$lt": wanted.created_before}})
    return conditions
