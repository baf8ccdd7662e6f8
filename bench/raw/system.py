"""The limit as a system under test: its processes, on the servers that Aiki is measured on."""

import asyncio
import sys
from pathlib import Path

from aiki.testing.servers import MongoNode, RabbitNode
from bench.raw.client import declare
from bench.raw.processes import AMQP_URL, MONGODB_URL, READY
from bench.system import Service, System

__all__ = ["RawSystem"]

NAME = "raw"


class RawSystem(System):
    """A virtual host and a database of its own, declared and indexed as Aiki's are."""

    def __init__(self, rabbit: RabbitNode, mongo: MongoNode, folder: Path) -> None:
        super().__init__(rabbit, mongo, folder)
        rabbit.add_vhost(NAME)
        self.url = rabbit.url_of(NAME)
        self.environment |= {AMQP_URL: self.url, MONGODB_URL: mongo.url_of(NAME)}
        asyncio.run(declare(self.url))

    def orchestrator(self, name: str = "orchestrator") -> Service:
        """Start the one that writes."""
        return self.start(name, [sys.executable, "-m", "bench.raw", "orchestrator"], READY)

    def worker(self, name: str = "worker") -> Service:
        """Start the one that executes."""
        return self.start(name, [sys.executable, "-m", "bench.raw", "worker"], READY)
