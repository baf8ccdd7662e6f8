"""RabbitMQ and MongoDB of our own, found or installed, started and ended with whoever needs them.

    with RabbitNode(folder / "rabbit") as rabbit, MongoNode(folder / "mongo") as mongo:
        connect(rabbit.url, mongo.url)
        rabbit.kill()  # SIGKILL
        rabbit.start()  # on the same data and port

For development and tests. `python -m aiki.testing.servers up` starts servers to work with.
"""

from aiki.testing.servers.local import Mongo, Rabbit, local_mongo, local_rabbit
from aiki.testing.servers.mongo import MongoNode
from aiki.testing.servers.node import NOBODY, ServerError, ServerNode, ServerStartError
from aiki.testing.servers.ports import free_port, free_ports
from aiki.testing.servers.programs import ServersUnavailableError
from aiki.testing.servers.rabbit import Epmd, RabbitNode
from aiki.testing.servers.replicas import MongoReplicaSet

__all__ = [
    "NOBODY",
    "Epmd",
    "Mongo",
    "MongoNode",
    "MongoReplicaSet",
    "Rabbit",
    "RabbitNode",
    "ServerError",
    "ServerNode",
    "ServerStartError",
    "ServersUnavailableError",
    "free_port",
    "free_ports",
    "local_mongo",
    "local_rabbit",
]
