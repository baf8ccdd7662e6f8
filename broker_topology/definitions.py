"""The definitions file: the topology as RabbitMQ imports it.

``rabbitmqctl import_definitions``, the management UI, and ``load_definitions`` in
rabbitmq.conf read it. The users in it have no password until an operator gives
them one (``rabbitmqctl change_password aiki-client …``), so they cannot log in.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from broker_topology.layout import PARTITIONS_DEFAULT, topology
from broker_topology.model import Binding, Exchange, Permission, Policy, Queue, Role, TopicPermission
from broker_topology.permissions import PERMISSIONS, TOPIC_PERMISSIONS, policies, worker_of

__all__ = ["definitions", "definitions_json", "password_hash", "user_of"]

NO_PASSWORD = ""  # RabbitMQ lets nobody log in with an empty hash.


def user_of(role: Role, name: str | None = None) -> str:
    """Name the user of a role, or of the workers of one workflow alone."""
    return f"aiki-{role}" if name is None else f"aiki-{role}-{name}"


def password_hash(password: str, salt: bytes) -> str:
    """Hash a password as RabbitMQ does, with a *salt* of four random bytes."""
    return b64encode(salt + sha256(salt + password.encode()).digest()).decode()


def definitions(
    partitions: int = PARTITIONS_DEFAULT,
    *,
    vhost: str = "/",
    password_hashes: Mapping[Role, str] | None = None,
    version: tuple[int, int] = (3, 10),
    workers: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the topology, the users and their permissions as RabbitMQ's definitions.

    *version* of the broker says which policies it knows; those for 3.10 suit every later one. For each name of a
    workflow or a task queue in *workers* there is a user besides, whose workers may serve nothing else.

    Raises:
        QueueNameError: no queue can have one of the names.
    """
    layout = topology(partitions)
    hashes = password_hashes or {}
    people = [(user_of(permission.role), permission) for permission in PERMISSIONS]
    people += [(user_of(Role.WORKER, name), worker_of(name)) for name in workers]
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(user, one, hashes.get(one.role, NO_PASSWORD)) for user, one in people],
        "permissions": [_permission(user, one, vhost) for user, one in people],
        "topic_permissions": [
            _topic_permission(user, topic, vhost)
            for user, one in people
            for topic in TOPIC_PERMISSIONS
            if topic.role is one.role
        ],
        "policies": [_policy(policy, vhost) for policy in policies(version)],
        "exchanges": [_exchange(exchange, vhost) for exchange in layout.exchanges],
        "queues": [_queue(queue, vhost) for queue in layout.queues],
        "bindings": [_binding(binding, vhost) for binding in layout.bindings],
    }


def definitions_json(
    partitions: int = PARTITIONS_DEFAULT,
    *,
    vhost: str = "/",
    version: tuple[int, int] = (3, 10),
    workers: Sequence[str] = (),
) -> str:
    """Write the text of ``definitions.json``. Raises as ``definitions``."""
    made = definitions(partitions, vhost=vhost, version=version, workers=workers)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _user(name: str, permission: Permission, hashed: str) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(permission.tags),
    }


def _permission(user: str, permission: Permission, vhost: str) -> dict[str, Any]:
    return {
        "user": user,
        "vhost": vhost,
        "configure": permission.configure,
        "write": permission.write,
        "read": permission.read,
    }


def _topic_permission(user: str, permission: TopicPermission, vhost: str) -> dict[str, Any]:
    return {
        "user": user,
        "vhost": vhost,
        "exchange": permission.exchange,
        "write": permission.write,
        "read": permission.read,
    }


def _policy(policy: Policy, vhost: str) -> dict[str, Any]:
    return {
        "vhost": vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": dict(policy.definition),
        "priority": policy.priority,
    }


def _exchange(exchange: Exchange, vhost: str) -> dict[str, Any]:
    return {
        "name": exchange.name,
        "vhost": vhost,
        "type": exchange.kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(queue: Queue, vhost: str) -> dict[str, Any]:
    return {
        "name": queue.name,
        "vhost": vhost,
        "durable": queue.durable,
        "auto_delete": False,
        "arguments": dict(queue.arguments),
    }


def _binding(binding: Binding, vhost: str) -> dict[str, Any]:
    return {
        "source": binding.exchange,
        "vhost": vhost,
        "destination": binding.queue,
        "destination_type": "queue",
        "routing_key": binding.routing_key,
        "arguments": {},
    }
