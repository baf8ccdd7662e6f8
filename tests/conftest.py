"""Servers for every test: one RabbitMQ and one MongoDB a session, shared by all of its test processes.

They start when the first test asks for them. A test gets a virtual host and a database of its own,
so tests never meet. Tests that kill or restart a server ask for a dedicated one.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiki.testing.servers import Mongo, MongoNode, Rabbit, RabbitNode, local_mongo, local_rabbit

SESSION_FOLDER = pytest.StashKey[Path]()
SESSION_OWNER = pytest.StashKey[int]()

# What brings a server brings the mark: `-m "not servers"` is the quick part of the suite.
SERVER_FIXTURES = {"rabbit", "mongo", "dedicated_rabbit", "dedicated_mongo", "standalone", "guarded", "replica_set"}


def pytest_configure(config: pytest.Config) -> None:
    """Agree on a folder for the servers of this session; a worker of xdist takes the one of its controller."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        config.stash[SESSION_FOLDER] = Path(tempfile.mkdtemp(prefix="aiki-tests-"))
        config.stash[SESSION_OWNER] = os.getpid()
    else:
        config.stash[SESSION_FOLDER] = Path(given["servers_folder"])
        config.stash[SESSION_OWNER] = int(given["servers_owner"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where its controller keeps the servers."""
    node.workerinput["servers_folder"] = str(node.config.stash[SESSION_FOLDER])
    node.workerinput["servers_owner"] = node.config.stash[SESSION_OWNER]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers with the session. (Should it be killed, their guards do this.)"""
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[SESSION_FOLDER]
    for node in (RabbitNode(folder / "rabbit"), MongoNode(folder / "mongo")):
        node.remove()
    shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need servers."""
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def rabbit(request: pytest.FixtureRequest) -> Iterator[Rabbit]:
    """The RabbitMQ of this session. Not to be stopped; see `dedicated_rabbit`."""
    stash = request.config.stash
    with local_rabbit(stash[SESSION_FOLDER] / "rabbit", owner=stash[SESSION_OWNER]) as server:
        yield server


@pytest.fixture(scope="session")
def mongo(request: pytest.FixtureRequest) -> Iterator[Mongo]:
    """The MongoDB of this session. Not to be stopped; see `dedicated_mongo`."""
    stash = request.config.stash
    with local_mongo(stash[SESSION_FOLDER] / "mongo", owner=stash[SESSION_OWNER]) as server:
        yield server


@pytest.fixture
def amqp_url(rabbit: Rabbit) -> Iterator[str]:
    """The URL of a virtual host that only this test has."""
    vhost = f"test-{uuid.uuid4().hex[:12]}"
    rabbit.add_vhost(vhost)
    yield rabbit.url_of(vhost)
    rabbit.delete_vhost(vhost)


@pytest.fixture
def mongodb_database(mongo: Mongo) -> Iterator[str]:
    """The name of a database that only this test has."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    yield database
    mongo.drop_database(database)


@pytest.fixture
def mongodb_url(mongo: Mongo, mongodb_database: str) -> str:
    """A connection string with this test's database as the default one."""
    return mongo.url_of(mongodb_database)


@pytest.fixture
def dedicated_rabbit(tmp_path: Path) -> Iterator[RabbitNode]:
    """A RabbitMQ that this test may kill, freeze and restart. Takes 4 to 8 seconds."""
    with RabbitNode(tmp_path / "rabbit") as node:
        yield node


@pytest.fixture
def dedicated_mongo(tmp_path: Path) -> Iterator[MongoNode]:
    """A MongoDB that this test may kill, freeze and restart."""
    with MongoNode(tmp_path / "mongo") as node:
        yield node
