"""The definitions file: the topology as RabbitMQ imports it.

``rabbitmqctl import_definitions``, the management UI, and ``load_definitions`` in
rabbitmq.conf read it. The users in it have no password until an operator gives
them one (``rabbitmqctl change_password aiki-client …``), so they cannot log in.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from broker_topology.layout import PARTITIONS_DEFAULT, topology
from broker_topology.model import Binding, Exchange, Permission, Policy, Queue, Role, TopicPermission
from broker_topology.permissions import PERMISSIONS, TOPIC_PERMISSIONS, policies

__all__ = ["definitions", "definitions_json", "password_hash", "user_of"]

NO_PASSWORD = ""  # RabbitMQ lets nobody log in with an empty hash.


def user_of(role: Role) -> str:
    """Name the user of a role."""
    return f"aiki-{role}"


def password_hash(password: str, salt: bytes) -> str:
    """Hash a password as RabbitMQ does, with a *salt* of four random bytes."""
    return b64encode(salt + sha256(salt + password.encode()).digest()).decode()


def definitions(
    partitions: int = PARTITIONS_DEFAULT,
    *,
    vhost: str = "/",
    password_hashes: Mapping[Role, str] | None = None,
    version: tuple[int, int] = (3, 10),
) -> dict[str, Any]:
    """Write the topology, the users and their permissions as RabbitMQ's definitions.

    *version* of the broker says which policies it knows; those for 3.10 suit every later one.
    """
    layout = topology(partitions)
    hashes = password_hashes or {}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(permission, hashes.get(permission.role, NO_PASSWORD)) for permission in PERMISSIONS],
        "permissions": [_permission(permission, vhost) for permission in PERMISSIONS],
        "topic_permissions": [_topic_permission(permission, vhost) for permission in TOPIC_PERMISSIONS],
        "policies": [_policy(policy, vhost) for policy in policies(version)],
        "exchanges": [_exchange(exchange, vhost) for exchange in layout.exchanges],
        "queues": [_queue(queue, vhost) for queue in layout.queues],
        "bindings": [_binding(binding, vhost) for binding in layout.bindings],
    }


def definitions_json(
    partitions: int = PARTITIONS_DEFAULT, *, vhost: str = "/", version: tuple[int, int] = (3, 10)
) -> str:
    """Write the text of ``definitions.json``."""
    return json.dumps(definitions(partitions, vhost=vhost, version=version), indent=2, ensure_ascii=False) + "\n"


def _user(permission: Permission, hashed: str) -> dict[str, Any]:
    return {
        "name": user_of(permission.role),
        "password_hash": hashed,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(permission.tags),
    }


def _permission(permission: Permission, vhost: str) -> dict[str, Any]:
    return {
        "user": user_of(permission.role),
        "vhost": vhost,
        "configure": permission.configure,
        "write": permission.write,
        "read": permission.read,
    }


def _topic_permission(permission: TopicPermission, vhost: str) -> dict[str, Any]:
    return {
        "user": user_of(permission.role),
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
