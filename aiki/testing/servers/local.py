"""Some RabbitMQ and some MongoDB, whatever this machine offers.

In this order: what `AIKI_AMQP_URL` and `AIKI_MONGODB_URL` name; a container, where a Docker engine
answers and `aiki[docker]` is installed; a private server from programs on the machine, which are
installed when that is possible. If none can be had, the error says what to do.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from aiki.testing.servers.containers import docker_answers, mongo_container, rabbit_container
from aiki.testing.servers.mongo import MongoNode
from aiki.testing.servers.rabbit import RabbitNode
from aiki.testing.servers.remote import RemoteMongo, RemoteRabbit

__all__ = ["Mongo", "Rabbit", "local_mongo", "local_rabbit"]


class Rabbit(Protocol):
    """A RabbitMQ where virtual hosts can be made."""

    @property
    def url(self) -> str:
        """The AMQP URL of the default virtual host."""

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a virtual host."""

    def add_vhost(self, name: str) -> None:
        """Make a virtual host that the user of the URL may use freely."""

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all its queues."""


class Mongo(Protocol):
    """A MongoDB where databases may be made and dropped."""

    @property
    def url(self) -> str:
        """The connection string."""

    def url_of(self, database: str) -> str:
        """The connection string, with a default database."""

    def drop_database(self, name: str) -> None:
        """Remove a database and all that is in it."""


@contextmanager
def local_rabbit(folder: Path | None = None, *, owner: int | None = None) -> Iterator[Rabbit]:
    """A RabbitMQ for as long as the context lasts.

    A private server in a *folder* is shared with all who name that folder, and lives until its
    *owner* (a process id, by default this process) is gone. Without a folder it ends with the context.

    Raises:
        ServersUnavailableError: none can be had.
        ServerStartError: it would not start.
    """
    if url := os.environ.get("AIKI_AMQP_URL"):
        yield RemoteRabbit(url, management_url=os.environ.get("AIKI_MANAGEMENT_URL"))
    elif docker_answers():
        with rabbit_container() as rabbit:
            yield rabbit
    elif folder is not None:
        yield RabbitNode(folder, owner=owner).start()
    else:
        with tempfile.TemporaryDirectory(prefix="aiki-") as scratch, RabbitNode(Path(scratch) / "rabbit") as node:
            yield node


@contextmanager
def local_mongo(folder: Path | None = None, *, owner: int | None = None) -> Iterator[Mongo]:
    """A MongoDB for as long as the context lasts; the same rules as for `local_rabbit`.

    Raises:
        ServersUnavailableError: none can be had.
        ServerStartError: it would not start.
    """
    if url := os.environ.get("AIKI_MONGODB_URL"):
        yield RemoteMongo(url)
    elif docker_answers():
        with mongo_container() as mongo:
            yield mongo
    elif folder is not None:
        yield MongoNode(folder, owner=owner).start()
    else:
        with tempfile.TemporaryDirectory(prefix="aiki-") as scratch, MongoNode(Path(scratch) / "mongo") as node:
            yield node
