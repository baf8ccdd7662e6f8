"""A private MongoDB: a replica set of one member by default, of several when they are joined."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pymongo
from pymongo.errors import PyMongoError

from aiki.testing.servers.node import ServerNode
from aiki.testing.servers.ports import LOOPBACK
from aiki.testing.servers.programs import SYSTEM_PATH, find_mongod

__all__ = ["MongoNode"]

REPLICA_SET = "aiki"
# Ten seconds, MongoDB's default, is how long a set goes without a primary. Loopback is quicker than that.
ELECTION_TIMEOUT_MILLIS = 500
PROBE_SECONDS = 2.0
CACHE_GIGABYTES = "0.25"


class MongoNode(ServerNode):
    """A private MongoDB, ready in under a second. It keeps what it confirmed through `kill`.

    By itself it is a replica set of one, so that `w="majority"`, change streams and transactions
    work as in production. With `initiate=False` it waits to be made a member of a set.
    """

    title = "MongoDB"
    port_names = ("mongodb",)

    def __init__(
        self,
        folder: Path,
        *,
        owner: int | None = None,
        preferred_ports: Mapping[str, int] | None = None,
        initiate: bool = True,
    ) -> None:
        super().__init__(folder, owner=owner, preferred_ports=preferred_ports)
        self.initiate = initiate
        self.known_as: str | None = None
        """Where clients and other members reach it, if that is not its own address: something stands in between."""

    @property
    def address(self) -> str:
        """Its own host and port."""
        return f"{LOOPBACK}:{self.ports['mongodb']}"

    @property
    def public_address(self) -> str:
        """Host and port, as clients and the members of a set know it."""
        return self.known_as or self.address

    @property
    def url(self) -> str:
        """The connection string."""
        return self.url_of("")

    def url_of(self, database: str) -> str:
        """The connection string, with a default database."""
        return f"mongodb://{self.public_address}/{database}?replicaSet={REPLICA_SET}"

    def prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        parameters = {
            "diagnosticDataCollectionEnabled": "false",
            "ttlMonitorSleepSecs": "1",
            "enableTestCommands": "1",  # For fail().
        }
        return [
            str(find_mongod()),
            *("--dbpath", str(self.folder / "data"), "--port", str(self.ports["mongodb"]), "--bind_ip", LOOPBACK),
            *("--nounixsocket", "--replSet", REPLICA_SET, "--oplogSize", "128"),
            *("--wiredTigerCacheSizeGB", CACHE_GIGABYTES),
            *(word for name, value in parameters.items() for word in ("--setParameter", f"{name}={value}")),
        ]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": str(self.folder)}

    def is_ready(self) -> bool:
        """Whether writes are taken; a new set is initiated on the way there."""
        try:
            with self.client(timeout=PROBE_SECONDS) as client:
                hello = client.admin.command("hello")
                if self.initiate and not hello.get("setName"):
                    self._initiate(client)
                    hello = client.admin.command("hello")
                return bool(hello.get("isWritablePrimary")) or not self.initiate
        except PyMongoError:
            return False

    def client(self, *, timeout: float = 10.0) -> "pymongo.MongoClient[dict[str, Any]]":
        """A client of this very member, primary or not, that gives up after *timeout*. To be closed."""
        milliseconds = int(timeout * 1000)
        return pymongo.MongoClient(
            self.address,
            directConnection=True,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        )

    def back_up(self, folder: Path) -> None:
        """Copy all data, as of one moment, to *folder*, which must not exist. Writes wait for it."""
        with self.client() as client:
            client.admin.command("fsync", lock=True)
            try:
                shutil.copytree(self.folder / "data", folder)
            finally:
                client.admin.command("fsyncUnlock")

    def restore(self, folder: Path) -> None:
        """Stop the server and put back what `back_up` copied to *folder*. `start` begins with that."""
        self.stop()
        shutil.rmtree(self.folder / "data")
        shutil.copytree(folder, self.folder / "data")

    def drop_database(self, name: str) -> None:
        """Remove a database and all that is in it."""
        with self.client() as client:
            client.drop_database(name)

    def fail(self, *commands: str, error_code: int, times: int | Literal["always"] = "always") -> None:
        """Answer these *commands* (`insert`, `update`, `find`…) with an error, a number of times or until `heal`."""
        mode: object = "alwaysOn" if times == "always" else {"times": times}
        with self.client() as client:
            client.admin.command(
                "configureFailPoint",
                "failCommand",
                mode=mode,
                data={"failCommands": list(commands), "errorCode": error_code, "failInternalCommands": False},
            )

    def heal(self) -> None:
        """End what `fail` began."""
        with self.client() as client:
            client.admin.command("configureFailPoint", "failCommand", mode="off")

    def _initiate(self, client: "pymongo.MongoClient[dict[str, Any]]") -> None:
        client.admin.command(
            "replSetInitiate",
            {
                "_id": REPLICA_SET,
                "members": [{"_id": 0, "host": self.public_address}],
                "settings": {"electionTimeoutMillis": ELECTION_TIMEOUT_MILLIS},
            },
        )
