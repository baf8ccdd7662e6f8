"""Restate as it is installed: a private server with its default settings, and a service of Python behind it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from aiki.testing.servers.node import ServerError, ServerNode
from aiki.testing.servers.ports import LOOPBACK
from aiki.testing.servers.programs import SYSTEM_PATH

__all__ = ["RestateNode", "ServiceNode", "find_restate_server"]

ROOT = Path(__file__).parents[2]
PROGRAM = "restate-server"
# npm puts the program into a package of its own for each kind of machine, and a script that starts it onto the path.
IN_NODE_MODULES = f"node_modules/@restatedev/{PROGRAM}-*/bin/{PROGRAM}"
PROBE_SECONDS = 5.0


class RestateNode(ServerNode):
    """A private `restate-server`: one node, default durability. It reports nothing to its makers."""

    title = "Restate"
    port_names = ("node", "ingress", "admin")

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(folder)
        self.program = program.absolute()

    def prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        return [str(self.program), "--no-logo"]

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": SYSTEM_PATH,
            "HOME": str(self.folder),
            "RESTATE_BASE_DIR": str(self.folder / "data"),
            "RESTATE_NODE_NAME": "bench",
            "RESTATE_BIND_IP": LOOPBACK,
            "RESTATE_BIND_PORT": str(self.ports["node"]),
            "RESTATE_INGRESS__BIND_PORT": str(self.ports["ingress"]),
            "RESTATE_ADMIN__BIND_PORT": str(self.ports["admin"]),
            "RESTATE_DISABLE_TELEMETRY": "true",
        }

    def is_ready(self) -> bool:
        return _answers(self.ports["admin"], "/health") and _answers(self.ports["ingress"], "/restate/health")

    def register(self, url: str) -> None:
        """Make the handlers of the service at *url* known.

        Raises:
            ServerError: the server does not accept it.
        """
        body = json.dumps({"uri": url})
        status, answer = _ask(self.ports["admin"], "POST", "/deployments", body)
        if status not in (200, 201):
            raise ServerError(f"{self.title} did not accept the service at {url}: {status} {answer}")


class ServiceNode(ServerNode):
    """`bench.beside.service` under granian: one worker process, as Aiki has one."""

    title = "Restate's service"
    port_names = ("service",)

    def __init__(self, folder: Path, python: Path) -> None:
        super().__init__(folder)
        self.python = python.absolute()  # Not resolved: the link is what belongs to its environment.

    @property
    def url(self) -> str:
        """Where the server reaches it."""
        return f"http://{LOOPBACK}:{self.ports['service']}"

    def prepare(self) -> None: ...

    def command(self) -> Sequence[str]:
        return [
            *(str(self.python), "-m", "granian", "--interface", "asginl", "--workers", "1"),
            *("--host", LOOPBACK, "--port", str(self.ports["service"]), "bench.beside.service:app"),
        ]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": SYSTEM_PATH, "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def is_ready(self) -> bool:
        return _answers(self.ports["service"], "/health")


def find_restate_server(folder: Path) -> Path | None:
    """Look for the program where npm puts it in *folder*, and on the path."""
    found = next(folder.glob(IN_NODE_MODULES), None) or shutil.which(PROGRAM)
    return None if found is None else Path(found)


def _answers(port: int, path: str) -> bool:
    with suppress(OSError, HTTPException):
        return _ask(port, "GET", path)[0] == 200
    return False


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
