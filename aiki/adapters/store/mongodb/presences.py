"""Who is there, in MongoDB: one collection for each kind, from which it removes by itself what has expired."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from aiki.adapters.store.mongodb.driver import Collection
from aiki.ports.store import Presence

__all__ = ["MongoPresences"]


class MongoPresences:
    """The presences of one kind. Their facts are JSON text: a key may be anything that JSON can say."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def announce(self, presence: Presence) -> None:
        """Keep or renew *presence*."""
        document = {"facts": json.dumps(dict(presence.facts)), "expires": presence.expires_at}
        await self._collection.replace_one({"_id": presence.id}, document, upsert=True)

    async def find(self, kind: Literal["orchestrator", "worker"], *, now: datetime) -> Sequence[Presence]:
        """Tell who is there."""
        found = await self._collection.find({"expires": {"$gt": now}}).sort("_id", 1).to_list(None)
        return [
            Presence(
                id=document["_id"],
                kind=kind,
                facts=_facts(document["facts"]),
                expires_at=document["expires"],
            )
            for document in found
        ]


def _facts(text: str) -> Mapping[str, object]:
    facts: Mapping[str, object] = json.loads(text)
    return facts
