"""The client's part of the broker, over a unix socket: how other processes on the machine speak to `aiki dev`."""

from aiki.adapters.broker.socket.client import SocketBroker
from aiki.adapters.broker.socket.frames import is_served, socket_path
from aiki.adapters.broker.socket.server import SocketServer

__all__ = ["SocketBroker", "SocketServer", "is_served", "socket_path"]
