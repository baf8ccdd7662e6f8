"""The store of deployments: MongoDB 4.4 or newer, as a standalone server, a replica set or a sharded cluster."""

from aiki.adapters.store.mongodb.store import MongoStore

__all__ = ["MongoStore"]
