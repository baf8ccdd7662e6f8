"""MongoDB with authentication: only orchestrators have credentials, and their role is all that they need."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure

from aiki import Client
from aiki.testing.servers import MongoNode
from tests.scenarios import app
from tests.scenarios.cluster import Cluster

USER, PASSWORD, DATABASE = "orchestrator", "of-a-test", "runs"
PATIENCE = 60.0


class LockedMongo(MongoNode):
    """A replica set whose members know each other by a key, and everybody else by name and password."""

    def prepare(self) -> None:
        super().prepare()
        key = self.folder / "key"
        key.write_text(secrets.token_hex(32), encoding="ascii")
        key.chmod(0o600)

    def command(self) -> Sequence[str]:
        return [*super().command(), "--auth", "--keyFile", str(self.folder / "key")]

    def admit(self) -> None:
        """Make the users: an administrator, and ours, who may read and write one database and nothing else."""
        with self.client() as client:  # Whoever is on the same machine may make the first user.
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with pymongo.MongoClient[dict[str, Any]](self.url_for("root")) as client:
            role = {"role": "readWrite", "db": DATABASE}
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=[role])

    def url_for(self, user: str) -> str:
        return self.url_of(DATABASE).replace("://", f"://{user}:{PASSWORD}@") + "&authSource=admin"


@pytest.fixture
def locked_mongo(tmp_path: Path) -> Iterator[LockedMongo]:
    with LockedMongo(tmp_path / "mongo") as node:
        node.admit()
        yield node


@pytest.mark.servers
@pytest.mark.timeout(120)
async def test_an_orchestrator_needs_to_read_and_write_its_database_and_nobody_else_needs_anything(
    cluster: Cluster, locked_mongo: LockedMongo
) -> None:
    ours: Mapping[str, str] = {"AIKI_MONGODB_URL": locked_mongo.url_for(USER), "AIKI_MONGODB_DATABASE": DATABASE}
    del cluster.environment["AIKI_MONGODB_URL"], cluster.environment["AIKI_MONGODB_DATABASE"]
    cluster.orchestrator(**ours)
    cluster.worker("count-to-three")

    async with Client.connect(cluster.amqp_url) as client:
        handle = await app.count_to_three.enqueue(client, 1)
        assert await handle.wait_for_completion(timeout=PATIENCE) == 4

    nobody = {**ours, "AIKI_MONGODB_URL": locked_mongo.url_of(DATABASE)}
    cluster.environment |= nobody
    refused = cluster.run("orchestrator")
    assert refused.returncode == 1
    assert "readWrite" in refused.stderr
    with pymongo.MongoClient[dict[str, Any]](locked_mongo.url_for(USER)) as client_of_ours:
        assert client_of_ours[DATABASE].runs.count_documents({}) == 1
        with pytest.raises(OperationFailure, match="not authorized"):
            client_of_ours["elsewhere"].runs.find_one()
