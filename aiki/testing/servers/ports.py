"""Free TCP ports on the loopback interface."""

import random
import socket

__all__ = ["LOOPBACK", "accepts_connections", "free_port", "free_ports", "is_free"]

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a server that is
# restarted on its port finds it free again, however many clients tried to reach it meanwhile.
CANDIDATES = range(20_000, 32_000)
TRIES = 200


def free_ports(count: int) -> list[int]:
    """*count* different ports that nobody listens on now.

    They are picked at random, so that programs that look for ports at the same time rarely agree on one.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(CANDIDATES, TRIES):
        if len(ports) == count:
            return ports
        if is_free(port):
            ports.append(port)
    raise OSError(f"found no {count} free ports on {LOOPBACK} between {CANDIDATES.start} and {CANDIDATES.stop}")


def free_port() -> int:
    """A port that nobody listens on now."""
    return free_ports(1)[0]


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on *port*."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    """Whether a server could listen on *port*."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As the servers do.
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
