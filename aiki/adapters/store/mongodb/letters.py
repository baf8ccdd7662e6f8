"""The dead letters in MongoDB."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pymongo import DESCENDING, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from aiki.adapters.store.mongodb.driver import Collection, duplicates
from aiki.adapters.store.pages import Cursor
from aiki.codec.documents import Document, letter_from_document, letter_to_document, storable_text
from aiki.engine.commands import DeadLetter
from aiki.engine.queries import StoredDeadLetter

__all__ = ["MongoLetters"]


class MongoLetters:
    """The documents of all dead letters, with what was done about them."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep *letters*: first those that are new, then those that have come again since."""
        if not letters:
            return
        documents = [_document_of(letter) for letter in letters]
        arrivals = [
            UpdateOne({"_id": document["_id"]}, {"$setOnInsert": {**document, "times": 1}}, upsert=True)
            for document in documents
        ]
        try:
            await self._collection.bulk_write(arrivals, ordered=False)
        except BulkWriteError as error:
            duplicates(error)  # Somebody else was adding the same letter: it is there, and that is all we want.

        # The same parking told again has the same moment, and changes nothing.
        returns = [
            UpdateOne(
                {"_id": document["_id"], "at": {"$lt": document["at"]}},
                {"$set": document, "$inc": {"times": 1}, "$unset": {"handled": ""}},
            )
            for document in documents
        ]
        await self._collection.bulk_write(returns, ordered=False)

    async def read(self, letter_id: str) -> StoredDeadLetter | None:
        """Read one dead letter."""
        return _maybe_letter_of(await self._collection.find_one({"_id": storable_text(letter_id)}))

    async def find(self, *, limit: int, cursor: str | None, include_done: bool) -> list[StoredDeadLetter]:
        """List dead letters, newest first."""
        selected: Document = {} if include_done else {"state": "parked"}
        if cursor is not None:
            last = Cursor.load(cursor)
            selected["at"] = {"$lte": last.at}
            selected["$or"] = [{"at": {"$lt": last.at}}, {"_id": {"$lt": storable_text(last.id)}}]
        found = self._collection.find(selected, limit=limit).sort([("at", DESCENDING), ("_id", DESCENDING)])
        return [_letter_of(document) for document in await found.to_list(None)]

    async def count_parked(self, *, limit: int) -> int:
        """Count the letters that wait for somebody, up to *limit*."""
        return await self._collection.count_documents({"state": "parked"}, limit=limit)

    async def handle(
        self, letter_id: str, state: Literal["redriven", "discarded"], *, at: datetime
    ) -> StoredDeadLetter | None:
        """Note what was done about a letter."""
        return _maybe_letter_of(
            await self._collection.find_one_and_update(
                {"_id": storable_text(letter_id)},
                {"$set": {"state": state, "handled": at}},
                return_document=ReturnDocument.AFTER,
            )
        )


def _document_of(letter: DeadLetter) -> Document:
    document = letter_to_document(letter)
    document["_id"] = document.pop("id")
    document["state"] = "parked"
    return document


def _letter_of(document: Document) -> StoredDeadLetter:
    document["id"] = document["_id"]
    return letter_from_document(
        document, times=int(document["times"]), state=document["state"], handled_at=document.get("handled")
    )


def _maybe_letter_of(document: Document | None) -> StoredDeadLetter | None:
    return None if document is None else _letter_of(document)
