"""A cluster for each scenario: on the servers that all tests share, or on servers of its own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiki.testing.servers import MongoNode, RabbitNode
from tests.scenarios.cluster import Cluster, a_cluster

TIMEOUT_SECONDS = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give scenarios the time that processes and servers take to die and to come back."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture
def cluster(tmp_path: Path, amqp_url: str, mongodb_url: str, mongodb_database: str) -> Iterator[Cluster]:
    """A cluster on the shared servers, with a virtual host and a database of its own."""
    with a_cluster(tmp_path, amqp_url=amqp_url, mongodb_url=mongodb_url, database=mongodb_database) as made:
        yield made


@pytest.fixture
def breakable_cluster(tmp_path: Path, dedicated_rabbit: RabbitNode, dedicated_mongo: MongoNode) -> Iterator[Cluster]:
    """A cluster on servers that the test may restart."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    with a_cluster(tmp_path, amqp_url=dedicated_rabbit.url, mongodb_url=dedicated_mongo.url, database=database) as made:
        yield made
