"""The seam to the driver: PyMongo's asyncio API, or a Motor client that an application brings.

Both have the same methods with the same arguments. Where one returns what the other
wants awaited, the difference is dealt with here, and nothing else knows of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

import pymongo
from bson import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern

from aiki.codec.documents import Document
from aiki.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

__all__ = [
    "CREDENTIALS_REFUSED",
    "Client",
    "Collection",
    "Database",
    "aggregate",
    "answering",
    "close_client",
    "connect",
    "duplicates",
    "open_database",
]

Client: TypeAlias = "AsyncMongoClient[Document] | AsyncIOMotorClient[Document]"
Database: TypeAlias = AsyncDatabase[Document]
Collection: TypeAlias = AsyncCollection[Document]

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
CREDENTIALS_REFUSED = frozenset({UNAUTHORIZED, AUTHENTICATION_FAILED})

CODEC = CodecOptions[Document](tz_aware=True, tzinfo=UTC)
# What a majority has on disk survives the loss of any minority; what a majority has is all that may be read.
SAFE_WRITES = WriteConcern(w="majority", j=True)
SAFE_READS = ReadConcern("majority")

HINTS = {
    UNAUTHORIZED: "give this user the role `readWrite` on the database",
    AUTHENTICATION_FAILED: "check the user, the password and `authSource` in AIKI_MONGODB_URL",
}


def connect(url: str) -> "AsyncMongoClient[Document]":
    """Make a client for *url*. Nothing is sent yet.

    Raises:
        ConfigurationError: *url* is no connection string.
    """
    hint = "it reads mongodb://user:password@host:27017/?replicaSet=…; escape special characters with %XX"
    if not url.startswith(("mongodb://", "mongodb+srv://")):  # The driver would take it for a host.
        raise ConfigurationError("the MongoDB URL does not begin with mongodb:// or mongodb+srv://", hint=hint)
    try:
        return AsyncMongoClient(url, appname="aiki")
    except (PyMongoError, ValueError, TypeError) as error:
        raise ConfigurationError(f"the MongoDB URL cannot be used: {error}", hint=hint) from error


def open_database(client: Client, database: str | None) -> Database:
    """Get a database with what every read and write of the store needs."""
    safe: Mapping[str, Any] = {
        "codec_options": CODEC,
        "read_preference": ReadPreference.PRIMARY,
        "write_concern": SAFE_WRITES,
        "read_concern": SAFE_READS,
    }
    found: Any = (
        client.get_default_database("aiki", **safe) if database is None else client.get_database(database, **safe)
    )
    return found  # type: ignore[no-any-return]  # Motor's database has the same methods.


async def aggregate(collection: Collection, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Run *pipeline* and take all that it yields."""
    cursor: Any = collection.aggregate(list(pipeline))
    if isawaitable(cursor):  # PyMongo sends it now, Motor when the cursor is read.
        cursor = await cursor
    found: list[Document] = await cursor.to_list(None)
    return found


async def close_client(client: Client) -> None:
    """Disconnect."""
    closing: Any = client.close()
    if isawaitable(closing):
        await closing


@contextmanager
def answering(*, timeout: float, doing: str) -> Iterator[None]:
    """Bound what is asked of MongoDB, and tell in our words what went wrong.

    Raises:
        StoreUnavailableError: it cannot be reached, refuses, or takes longer than *timeout* seconds.
    """
    try:
        with pymongo.timeout(timeout):
            yield
    except PyMongoError as error:
        raise _unavailable(error, timeout=timeout, doing=doing) from error


def duplicates(error: BulkWriteError) -> list[int]:
    """Tell which operations of a bulk met a document that was there already.

    Raises:
        BulkWriteError: anything else went wrong too.
    """
    details = error.details
    failures = details.get("writeErrors", [])
    if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return [failure["index"] for failure in failures]


def _unavailable(error: PyMongoError, *, timeout: float, doing: str) -> StoreUnavailableError:
    reason, code = _explain(error)
    if isinstance(error, ServerSelectionTimeoutError):
        return StoreUnavailableError(
            f"MongoDB cannot be reached to {doing}: {reason}",
            hint="is it running, does AIKI_MONGODB_URL name it, and has its replica set a primary?",
        )
    if error.timeout:
        return StoreUnavailableError(
            f"MongoDB did not answer within {timeout:g} s when asked to {doing}: {reason}",
            hint="is it overloaded, or without a primary or a majority?",
        )
    if isinstance(error, ConnectionFailure):
        return StoreUnavailableError(
            f"MongoDB cannot be reached to {doing}: {reason}", hint="is it running, and does AIKI_MONGODB_URL name it?"
        )
    return StoreUnavailableError(
        f"MongoDB refuses to {doing}: {reason}", hint=HINTS.get(code, "its log knows more") if code else None
    )


def _explain(error: PyMongoError) -> tuple[str, int | None]:
    """Say what happened without what the driver adds: documents, and descriptions of the whole cluster."""
    if isinstance(error, BulkWriteError):
        details = error.details
        first: Mapping[str, Any] = next(
            iter([*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]), {}
        )
        return str(first.get("errmsg", "unknown")), first.get("code")
    if isinstance(error, OperationFailure):
        return str((error.details or {}).get("errmsg", error)), error.code
    return str(error).partition(", Timeout:")[0].partition(" (configured timeouts:")[0], None
