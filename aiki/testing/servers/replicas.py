"""A MongoDB of several members: what a majority confirmed survives the loss of any one of three."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pymongo.errors import OperationFailure, PyMongoError

from aiki.testing.servers.mongo import REPLICA_SET, MongoNode
from aiki.testing.servers.node import POLL_SECONDS, ServerError

__all__ = ["MongoReplicaSet"]

# Short enough for a test, long enough for members that share two busy cores not to depose each other all the time.
ELECTION_TIMEOUT_MILLIS: Final = 1000
HEARTBEAT_INTERVAL_MILLIS: Final = 500
# The set is busy with the change before: what the members made of that has not come round yet.
NOT_YET: Final = frozenset({103, 308, 109, 10107})


class MongoReplicaSet:
    """Members of one replica set, each a private server that may be killed, frozen and started again."""

    ready_seconds = 60.0

    def __init__(self, folder: Path, *, size: int = 3, owner: int | None = None) -> None:
        self.folder = folder
        self.members = tuple(MongoNode(folder / f"member-{n}", owner=owner, initiate=False) for n in range(size))

    @property
    def url(self) -> str:
        """The connection string, with all members."""
        addresses = ",".join(member.public_address for member in self.members)
        return f"mongodb://{addresses}/?replicaSet={REPLICA_SET}"

    @property
    def primary(self) -> MongoNode | None:
        """The member that takes writes now, if there is one."""
        return next((member for member in self.members if self._is_primary(member)), None)

    def start(self) -> Self:
        """Start the members, make a set of the first and let the others join one by one; wait until all have votes.

        Raises:
            ServerError: a member does not start, all of them were ended, or the set is not complete in time.
        """
        for member in self.members:
            member.start(wait=False)
        for member in self.members:
            member.wait_until_ready()
        self._initiate()
        for number in range(1, len(self.members)):
            self._wait(partial(self._join, number), "took no further member")
        self._wait(self._is_complete, "was not complete")
        return self

    def wait_for_primary(self, *, other_than: MongoNode | None = None) -> MongoNode:
        """Wait until a member takes writes (another one than it was), and tell which.

        Raises:
            ServerError: none does in time, or none runs.
        """
        found: list[MongoNode] = []

        def is_elected() -> bool:
            primary = self.primary
            if primary is None or primary is other_than:
                return False
            found.append(primary)
            return True

        self._wait(is_elected, "elected no primary")
        return found[-1]

    def remove(self) -> None:
        """Kill all members and remove all that they have written."""
        for member in self.members:
            member.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _initiate(self) -> None:
        first = self.members[0]
        settings = {
            "electionTimeoutMillis": ELECTION_TIMEOUT_MILLIS,
            "heartbeatIntervalMillis": HEARTBEAT_INTERVAL_MILLIS,
        }
        with first.client() as client:
            if not client.admin.command("hello").get("setName"):
                members = [{"_id": 0, "host": first.public_address}]
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members, "settings": settings})
        self.wait_for_primary()

    def _join(self, number: int) -> bool:
        """Let a member join; tell whether it is in."""
        primary = self.primary
        if primary is None:
            return False
        with primary.client() as client:
            config = client.admin.command("replSetGetConfig")["config"]
            if any(member["_id"] == number for member in config["members"]):
                return True
            config["members"].append({"_id": number, "host": self.members[number].public_address})
            config["version"] += 1
            try:
                client.admin.command("replSetReconfig", config)
            except OperationFailure as error:
                if error.code not in NOT_YET:
                    raise
                return False
        return True

    def _is_complete(self) -> bool:
        """Whether every member is there and votes: one that was newly added does not until it has all data."""
        primary = self.primary
        if primary is None:
            return False
        with primary.client() as client:
            status = client.admin.command("replSetGetStatus")
        states = sorted(member["stateStr"] for member in status["members"])
        return states == ["PRIMARY", *["SECONDARY"] * (len(self.members) - 1)] and status["votingMembersCount"] == len(
            self.members
        )

    def _is_primary(self, member: MongoNode) -> bool:
        if not member.is_running:
            return False
        try:
            with member.client(timeout=1.0) as client:
                return bool(client.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:
            return False

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while not condition():
            if not any(member.is_running for member in self.members):
                raise ServerError(f"the replica set in {self.folder} {complaint}: no member of it runs")
            if time.monotonic() > deadline:
                raise ServerError(f"the replica set in {self.folder} {complaint} within {self.ready_seconds:g} seconds")
            time.sleep(POLL_SECONDS)
