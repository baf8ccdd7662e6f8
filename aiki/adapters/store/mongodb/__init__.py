"""The store of deployments: MongoDB 4.4 or newer, a standalone server or a replica set."""

from aiki.adapters.store.mongodb.store import MongoStore

__all__ = ["MongoStore"]
