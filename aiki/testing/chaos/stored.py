"""What MongoDB says of the runs: every write of them while it happens, and everything that is there at the end."""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from aiki.codec.documents import entry_from_document, letter_from_document, run_from_document, text_of
from aiki.engine.journal import JournalEntry
from aiki.testing.chaos.cluster import DATABASE
from aiki.testing.chaos.history import History, Written

__all__ = ["Watch", "read_store", "unfinished"]

_PIPELINE: Sequence[Mapping[str, Any]] = [
    {"$match": {"operationType": {"$in": ["insert", "replace", "update"]}}},
    {
        "$project": {
            "documentKey": 1,
            "wallTime": 1,
            "fullDocument": dict.fromkeys(("rev", "status", "pair", "holder", "base"), 1),
        }
    },
]
_PATIENCE_MILLIS = 30_000
# MongoDB looks for what has expired every second here; a new primary takes a while to begin.
PRESENCE_SLACK = timedelta(seconds=15)
# No write of a run is reported any later than this after the last one that was.
_SILENCE_MILLIS = 500


class Watch:
    """Follows the writes of all runs from its start to its end, through the loss of any member."""

    def __init__(self, url: str) -> None:
        self.writes: list[Written] = []
        self._url = url
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="chaos-watch", daemon=True)

    def start(self) -> None:
        """Follow from now on; returns when no later write can be missed."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop, when everything that was written so far has been seen."""
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        token: Mapping[str, Any] | None = None
        with _client(self._url) as client:
            runs = client[DATABASE]["runs"]
            while True:
                try:
                    with runs.watch(_PIPELINE, resume_after=token, max_await_time_ms=_SILENCE_MILLIS) as stream:
                        self._ready.set()
                        while True:
                            change = stream.try_next()
                            token = stream.resume_token
                            if change is not None:
                                self._note(change)
                            elif self._stopping.is_set():
                                return
                except PyMongoError:  # The driver has tried again by itself; the set takes longer to find a primary.
                    self._stopping.wait(0.2)

    def _note(self, change: Mapping[str, Any]) -> None:
        document = change.get("fullDocument")
        if document is None or "pair" not in document:
            return
        pair = document["pair"]
        self.writes.append(
            Written(
                run_id=text_of(change["documentKey"]["_id"]),
                revision=int(document["rev"]),
                status=document["status"],
                epoch=int(pair["epoch"]),
                dispatch_id=text_of(pair["dispatch"]),
                holder=document.get("holder"),
                base_seq=int(document.get("base", 0)),
                at=change["wallTime"].timestamp(),
            )
        )


def unfinished(url: str) -> list[str]:
    """Name some runs that are not over, with their statuses."""
    with _client(url) as client:
        found = client[DATABASE]["runs"].find({"open": True}, {"status": 1, "workflow": 1}, limit=20)
        return [f"{document['_id']} ({document['workflow']}) is {document['status']}" for document in found]


def read_store(url: str, history: History) -> None:
    """Read all runs with their journals, the dead letters and what is left of dead processes into *history*."""
    with _client(url) as client:
        database = client.get_database(DATABASE, read_concern=pymongo.read_concern.ReadConcern("majority"))
        journals: dict[str, list[JournalEntry]] = defaultdict(list)
        for document in database["journal"].find(sort=[("_id", 1)]):
            journals[text_of(document["run"])].append(entry_from_document(document))
        for document in database["runs"].find():
            document["run"] = document.pop("_id")
            run_id = text_of(document["run"])
            run = run_from_document(document)
            history.runs[run_id] = run
            # What an earlier holder left behind the base of the current dispatch does not count.
            history.journals[run_id] = [
                entry
                for entry in journals.pop(run_id, ())
                if entry.seq <= run.base_seq or entry.epoch >= run.pair.epoch
            ]
        history.journals.update(journals)
        for document in database["dead_letters"].find():
            document["id"] = document["_id"]
            letter = letter_from_document(document, times=1, state="parked", handled_at=None)
            history.letters.append(letter.letter)
        history.left_over += [
            f"the presence {presence['_id']} has outlived its time"
            for kind in ("orchestrators", "workers")
            for presence in database[kind].find({"expires": {"$lt": datetime.now(UTC) - PRESENCE_SLACK}})
        ]


def _client(url: str) -> "pymongo.MongoClient[dict[str, Any]]":
    return pymongo.MongoClient(
        url,
        tz_aware=True,
        serverSelectionTimeoutMS=_PATIENCE_MILLIS,
        connectTimeoutMS=5_000,
        socketTimeoutMS=20_000,
    )
