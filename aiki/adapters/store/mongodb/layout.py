"""What lies where in the database: collections, the ids of their documents, indexes.

Every index is there for a query of the store; what a query would not use is not kept.
To shard, shard ``runs`` by ``_id`` and ``journal`` by ``run``: both are in every write
and in every read on the way of a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pymongo import ASCENDING, DESCENDING, IndexModel

from aiki.adapters.store.rules import slot_of
from aiki.codec.documents import Document, entry_to_document, run_to_document, storable_text
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState

__all__ = ["INDEXES", "entry_place", "entry_range", "journal_document", "run_document"]

SEQ_DIGITS = 8
"""Places sort as text sorts, so the numbers in them are of one width: a hundred million entries a run."""

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "runs": (
        IndexModel([("created", DESCENDING), ("_id", DESCENDING)], name="listed"),
        IndexModel(
            [("workflow", ASCENDING), ("status", ASCENDING), ("created", DESCENDING), ("_id", DESCENDING)],
            name="of_workflow",
        ),
        IndexModel([("status", ASCENDING), ("created", DESCENDING), ("_id", DESCENDING)], name="of_status"),
        IndexModel(
            [("tags", ASCENDING), ("created", DESCENDING), ("_id", DESCENDING)],
            name="tagged",
            partialFilterExpression={"tags": {"$exists": True}},
        ),
        IndexModel(
            [("due", ASCENDING), ("slot", ASCENDING)],
            name="due",
            partialFilterExpression={"due": {"$exists": True}},
        ),
        IndexModel(
            [("open", ASCENDING), ("_id", ASCENDING), ("slot", ASCENDING)],
            name="open",
            partialFilterExpression={"open": {"$exists": True}},
        ),
        IndexModel(
            [("parent.run", ASCENDING)], name="children", partialFilterExpression={"parent.run": {"$exists": True}}
        ),
        IndexModel([("expires", ASCENDING)], name="expiring", partialFilterExpression={"expires": {"$exists": True}}),
    ),
    "dead_letters": (
        IndexModel([("at", DESCENDING), ("_id", DESCENDING)], name="listed"),
        IndexModel([("state", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="of_state"),
    ),
    "orchestrators": (IndexModel([("expires", ASCENDING)], name="expired", expireAfterSeconds=0),),
    "workers": (IndexModel([("expires", ASCENDING)], name="expired", expireAfterSeconds=0),),
}


def run_document(run: RunState) -> Document:
    """Write *run* with what its indexes need: ``slot`` for its partition, ``open`` and ``due`` until it is final."""
    document = run_to_document(run)
    document["_id"] = document.pop("run")
    document["slot"] = slot_of(run.run_id)
    if not run.status.is_final:
        document["open"] = True
    if run.due_at is not None:
        document["due"] = run.due_at
    return document


def journal_document(run: RunState, entry: JournalEntry, *, prefix: str, whole: int) -> Document:
    """Write *entry* with its place and its run; *prefix* is that of the run's ``entry_place``.

    Up to *whole*, nothing is missing in the journal.
    """
    document = entry_to_document(entry)
    document["_id"] = f"{prefix}{entry.seq:0{SEQ_DIGITS}}"
    document["run"] = storable_text(run.run_id)
    document["whole"] = whole
    return document


def entry_place(run_id: str, incarnation: str) -> str:
    """Begin the ids of the journal of one incarnation: ``run:incarnation:``, and the entry's number follows."""
    return f"{_word(run_id)}:{_word(incarnation)}:"


def entry_range(run_id: str, incarnation: str, *, after_seq: int = 0) -> dict[str, Any]:
    """Select the journal of one incarnation, behind *after_seq*."""
    prefix = entry_place(run_id, incarnation)
    return {
        "run": storable_text(run_id),
        "_id": {"$gt": f"{prefix}{max(after_seq, 0):0{SEQ_DIGITS}}", "$lt": f"{prefix}~"},
    }


def _word(text: str) -> str:
    """Escape what would let two different pairs of words look alike."""
    return quote(text, safe="", errors="surrogatepass")
