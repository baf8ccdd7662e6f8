"""Servers that somebody else runs: named in the environment, or in a container."""

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pymongo

from aiki.testing.servers.node import ServerError

__all__ = ["RemoteMongo", "RemoteRabbit"]

MANAGEMENT_PORT = 15672
ANSWER_SECONDS = 30.0
GONE = 404


class RemoteRabbit:
    """A RabbitMQ known by its AMQP URL. Virtual hosts are made through its management plugin."""

    def __init__(self, url: str, *, management_url: str | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        self.user = unquote(parts.username or "guest")
        management = urlsplit(management_url or f"http://{parts.hostname}:{MANAGEMENT_PORT}")
        administrator = unquote(management.username or self.user)
        password = unquote(management.password or parts.password or "guest")
        self._login = base64.b64encode(f"{administrator}:{password}".encode()).decode()
        self.management_url = urlunsplit(management._replace(netloc=management.netloc.rpartition("@")[2]))

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a virtual host, for the same user."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{quote(vhost, safe='')}"))

    def add_vhost(self, name: str) -> None:
        """Make a virtual host and give the user all permissions there."""
        self._request("PUT", f"vhosts/{quote(name, safe='')}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._request("PUT", f"permissions/{quote(name, safe='')}/{quote(self.user, safe='')}", everything)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all its queues; its clients are disconnected."""
        self._request("DELETE", f"vhosts/{quote(name, safe='')}", None)

    def _request(self, method: str, path: str, body: dict[str, str] | None) -> None:
        """Raises: ServerError: the plugin does not answer, or refuses."""
        request = urllib.request.Request(
            f"{self.management_url.rstrip('/')}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {self._login}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError as error:
            with error:
                if method != "DELETE" or error.code != GONE:
                    raise self._unusable(f"answered {error.code} to {method} {path}") from error
        except OSError as error:
            raise self._unusable(f"cannot be reached: {error}") from error

    def _unusable(self, reason: str) -> ServerError:
        return ServerError(
            f"the management plugin of RabbitMQ at {self.management_url} {reason}",
            hint="tests make a virtual host each: enable rabbitmq_management and set AIKI_MANAGEMENT_URL, "
            "or unset AIKI_AMQP_URL to have a private RabbitMQ started",
        )


class RemoteMongo:
    """A MongoDB known by its connection string."""

    def __init__(self, url: str) -> None:
        self.url = url

    def url_of(self, database: str) -> str:
        """The connection string with another default database."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def drop_database(self, name: str) -> None:
        """Remove a database and all that is in it."""
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url) as client:
            client.drop_database(name)
