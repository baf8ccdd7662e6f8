"""For operators: what MongoDB says of itself and of our database. Nothing is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiki.adapters.store.mongodb.driver import answering, connect, open_database

__all__ = ["StoreReport", "inspect_store"]

_TIMEOUT = 10.0
_NEEDED = frozenset({"find", "insert", "update", "remove", "createCollection", "createIndex"})


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What is there."""

    version: str
    setup: str
    """``standalone``, ``replica set NAME`` or ``sharded cluster``."""
    partitions: int | None
    """What the store was set up with; ``None`` before an orchestrator has used it."""
    lacking: tuple[str, ...]
    """Actions that an orchestrator needs and this user may not do."""


async def inspect_store(url: str, *, database: str | None) -> StoreReport:
    """Look at the server behind *url* and at *database* (that of the URL, else ``aiki``).

    Raises:
        ConfigurationError: *url* is no connection string.
        StoreUnavailableError: it cannot be reached, or refuses us.
    """
    client = connect(url)
    try:
        with answering(timeout=_TIMEOUT, doing="look at the database"):
            hello: Mapping[str, Any] = await client.admin.command("hello")
            build: Mapping[str, Any] = await client.admin.command("buildInfo")
            status: Mapping[str, Any] = await client.admin.command("connectionStatus", showPrivileges=True)
            ours = open_database(client, database)
            setting = await ours["settings"].find_one({"_id": "partitions"})
    finally:
        await client.close()
    return StoreReport(
        version=str(build["version"]),
        setup=_setup(hello),
        partitions=None if setting is None else int(setting["value"]),
        lacking=_lacking(status["authInfo"], ours.name),
    )


def _setup(hello: Mapping[str, Any]) -> str:
    if hello.get("msg") == "isdbgrid":
        return "sharded cluster"
    return f"replica set {hello['setName']}" if "setName" in hello else "standalone"


def _lacking(auth: Mapping[str, Any], database: str) -> tuple[str, ...]:
    if not auth["authenticatedUsers"]:
        return ()  # No access control: whoever can connect may do everything.
    privileges: Iterable[Mapping[str, Any]] = auth.get("authenticatedUserPrivileges", ())
    granted = {
        action
        for privilege in privileges
        if _covers(privilege["resource"], database)
        for action in privilege["actions"]
    }
    return () if "anyAction" in granted else tuple(sorted(_NEEDED - granted))


def _covers(resource: Mapping[str, Any], database: str) -> bool:
    if resource.get("anyResource"):
        return True
    return resource.get("collection") == "" and resource.get("db") in ("", database)
