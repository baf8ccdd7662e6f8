"""Servers in containers, through testcontainers (`aiki[docker]`), where a Docker engine answers.

Thin, and not exercised by the project's own continuous integration, which has no engine.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo.errors import PyMongoError

from aiki.testing.servers.node import ServerError
from aiki.testing.servers.rabbit import PASSWORD, USER, answers_amqp
from aiki.testing.servers.remote import RemoteMongo, RemoteRabbit

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

__all__ = ["docker_answers", "mongo_container", "rabbit_container"]

RABBITMQ_IMAGE = "rabbitmq:3.13-management"
MONGODB_IMAGE = "mongo:7.0"
AMQP_PORT, MANAGEMENT_PORT, MONGODB_PORT = 5672, 15672, 27017
READY_SECONDS = 120.0
PING_SECONDS = 3


def docker_answers() -> bool:
    """Whether a Docker engine is there and the `docker` extra is installed."""
    might_be_there = "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists()
    if not might_be_there or importlib.util.find_spec("testcontainers") is None:
        return False

    import docker  # Takes a third of a second to import: only where it is of use.
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=PING_SECONDS)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


@contextmanager
def rabbit_container() -> Iterator[RemoteRabbit]:
    """A RabbitMQ with the management plugin, removed at the end."""
    from testcontainers.core.container import DockerContainer

    with DockerContainer(RABBITMQ_IMAGE).with_exposed_ports(AMQP_PORT, MANAGEMENT_PORT) as container:
        host, amqp_port = _address(container, AMQP_PORT)
        _wait_until("RabbitMQ", lambda: answers_amqp(host, amqp_port))
        management = _address(container, MANAGEMENT_PORT)
        yield RemoteRabbit(
            f"amqp://{USER}:{PASSWORD}@{host}:{amqp_port}/%2F", management_url=f"http://{management[0]}:{management[1]}"
        )


@contextmanager
def mongo_container() -> Iterator[RemoteMongo]:
    """A MongoDB that is a replica set of one, removed at the end."""
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(MONGODB_IMAGE).with_exposed_ports(MONGODB_PORT)
    with container.with_command("--replSet aiki --bind_ip_all"):
        host, port = _address(container, MONGODB_PORT)
        # The set knows its member by the address inside the container, so clients must not ask it for one.
        url = f"mongodb://{host}:{port}/?directConnection=true"
        _wait_until("MongoDB", lambda: _is_primary(url))
        yield RemoteMongo(url)


def _is_primary(url: str) -> bool:
    client: pymongo.MongoClient[dict[str, Any]]
    try:
        with pymongo.MongoClient(url, serverSelectionTimeoutMS=500) as client:
            hello = client.admin.command("hello")
            if not hello.get("setName"):
                members = [{"_id": 0, "host": f"localhost:{MONGODB_PORT}"}]
                client.admin.command("replSetInitiate", {"_id": "aiki", "members": members})
            return bool(hello.get("isWritablePrimary"))
    except PyMongoError:
        return False


def _address(container: "DockerContainer", port: int) -> tuple[str, int]:
    return container.get_container_host_ip(), int(container.get_exposed_port(port))


def _wait_until(title: str, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{title} in its container was not ready within {READY_SECONDS:g} seconds")
        time.sleep(0.1)
