"""A broker in this process: for embedded mode and for tests. It keeps the same contract as RabbitMQ.

A ``MemoryHub`` is the broker itself; each ``MemoryBroker`` is one process's end of it.
"""

from aiki.adapters.broker.memory.broker import MemoryBroker
from aiki.adapters.broker.memory.hub import MemoryHub

__all__ = ["MemoryBroker", "MemoryHub"]
