"""A private RabbitMQ: one node by default, several of them a cluster.

The package's own start script is told to become the broker (`RABBITMQ_ALLOW_INPUT`) instead of
minding it, so that the process we start is the broker itself and signals reach it. Erlang's port
mapper, a daemon that nodes of one machine normally share, is private too and ends with its node.
"""

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from aiki.testing.servers.node import ServerError, ServerNode
from aiki.testing.servers.ports import LOOPBACK, accepts_connections
from aiki.testing.servers.programs import SYSTEM_PATH, find_epmd, find_rabbitmq

__all__ = ["Epmd", "RabbitNode", "answers_amqp", "erlang_string"]

USER = PASSWORD = "guest"  # Loopback only, as in RabbitMQ's own defaults.
COOKIE = "AIKIPRIVATESERVERS"
CTL_SECONDS = 60.0

AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME_ON_CHANNEL_0 = b"\x01\x00\x00"


class Epmd(ServerNode):
    """A private Erlang port mapper. Nodes that are to form a cluster share one."""

    title = "Erlang's port mapper"
    port_names = ("epmd",)

    def prepare(self) -> None:
        """It needs nothing."""

    def command(self) -> Sequence[str]:
        return [str(find_epmd()), "-port", str(self.ports["epmd"]), "-address", LOOPBACK]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": SYSTEM_PATH}

    def is_ready(self) -> bool:
        return accepts_connections(self.ports["epmd"])


class RabbitNode(ServerNode):
    """A private RabbitMQ.

    Ready in 4 to 8 seconds, stopped in about one (six with the management plugin, which drains its
    HTTP listener). A virtual host costs some 20 ms, an `rabbitmqctl` call half a second.
    """

    title = "RabbitMQ"
    port_names = ("amqp", "distribution", "management")
    default_vhost: ClassVar[str] = "/"

    def __init__(
        self,
        folder: Path,
        *,
        owner: int | None = None,
        preferred_ports: Mapping[str, int] | None = None,
        name: str = "rabbit",
        management: bool = False,
        plugins: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        epmd: Epmd | None = None,
    ) -> None:
        """A node in *folder*, to be started with `start`.

        *settings* are lines for rabbitmq.conf. To form a cluster, give the nodes different names,
        one *epmd*, and settings of cluster_formation.
        """
        super().__init__(folder, owner=owner, preferred_ports=preferred_ports)
        self.node_name = f"{name}@localhost"
        self.management = management
        self.plugins = (*plugins, "rabbitmq_management") if management else tuple(plugins)
        self.settings = dict(settings or {})
        self._shares_epmd = epmd is not None
        self.epmd = epmd or Epmd(self.folder / "epmd", owner=self.owner)

    @property
    def url(self) -> str:
        """The AMQP URL of the default virtual host."""
        return self.url_of(self.default_vhost)

    def url_of(self, vhost: str, *, user: str = USER, password: str = PASSWORD) -> str:
        """The AMQP URL of a virtual host, for a user of this node."""
        return f"amqp://{quote(user)}:{quote(password)}@{LOOPBACK}:{self.ports['amqp']}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """Where the management UI is, on a node that was made with it."""
        return f"http://{LOOPBACK}:{self.ports['management']}/"

    def prepare(self) -> None:
        self.epmd.start()
        for name in ("home", "mnesia", "log"):
            (self.folder / name).mkdir(exist_ok=True)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(COOKIE, encoding="ascii")
            cookie.chmod(0o400)
        lines = [f"{key} = {value}" for key, value in {**self._own_settings(), **self.settings}.items()]
        self._write_text("rabbitmq.conf", "\n".join(lines) + "\n")
        self._write_text("enabled_plugins", f"[{','.join(self.plugins)}].\n")
        self._write_text("advanced.config", "[].\n")

    def command(self) -> Sequence[str]:
        return [str(find_rabbitmq() / "rabbitmq-server")]

    def environment(self) -> Mapping[str, str]:
        folder = self.folder
        return {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_CRASH_DUMP": str(folder / "log" / "erl_crash.dump"),
            "ERL_EPMD_PORT": str(self.epmd.ports["epmd"]),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # Not the system's /etc/rabbitmq/rabbitmq-env.conf.
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # No shell, as without ALLOW_INPUT. Schedulers that sleep when there is nothing to do leave
            # the processor to the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
            " +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            # Zeros let the system choose: the default of eleven ports runs out when tests run in parallel.
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        }

    def is_ready(self) -> bool:
        """Whether the broker answers on its AMQP listener, which it opens last."""
        return answers_amqp(LOOPBACK, self.ports["amqp"])

    def stop(self) -> None:
        super().stop()
        if not self._shares_epmd:
            self.epmd.stop()

    def remove(self) -> None:
        if not self._shares_epmd:
            self.epmd.kill()
        super().remove()

    def wipe(self) -> None:
        """Kill the broker and remove all that it kept, as when its disk is lost. `start` makes an empty one."""
        self.kill()
        shutil.rmtree(self.folder / "mnesia")

    def ctl(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """What `rabbitmqctl` (or another of RabbitMQ's programs) says to *arguments*.

        Raises:
            ServerError: it failed.
        """
        done = subprocess.run(
            [str(find_rabbitmq() / program), "--node", self.node_name, *arguments],
            env=dict(self.environment()),
            capture_output=True,
            text=True,
            timeout=CTL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"{program} {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """The value of an Erlang *expression* (without its full stop) in the broker, as Erlang prints it.

        Erlang's own `erl_call` does it in 10 ms where it is installed; `rabbitmqctl eval` takes half a second.

        Raises:
            ServerError: it failed.
        """
        caller = shutil.which("erl_call", path=f"{SYSTEM_PATH}:/usr/lib/erlang/bin")
        if caller is None:
            return self.ctl("eval", f"{expression}.").strip()
        # The random names that it chooses by itself (`-r`) are alike in all that start at the same moment.
        name = f"call-{uuid.uuid4().hex[:12]}"
        try:
            done = subprocess.run(
                [caller, "-h", name, "-sname", self.node_name, "-c", COOKIE, "-e"],
                input=f"{expression}.\n",
                env=dict(self.environment()),
                capture_output=True,
                text=True,
                timeout=CTL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"the broker did not evaluate {expression} within {CTL_SECONDS:g} s") from error
        answer = done.stdout.strip()
        if done.returncode != 0 or not answer.startswith("{ok, "):
            raise ServerError(f"the broker could not evaluate {expression}: {answer or done.stderr.strip()}")
        return answer.removeprefix("{ok, ").removesuffix("}")

    def settle(self) -> None:
        """Have the broker write down which queues it has, so that a `kill` right after this spares them.

        It writes that list twice a second and no earlier. A broker killed before has a quorum queue
        that was just declared, but no leader for it and none of its messages, confirmed or not.
        """
        self.evaluate("lists:foreach(fun dets:sync/1, dets:all())")

    def add_vhost(self, name: str, *, user: str = USER) -> None:
        """Make a virtual host and give *user* all permissions there."""
        vhost, who = erlang_string(name), erlang_string(user)
        everything = erlang_string(".*")
        self.evaluate(
            f"ok = rabbit_vhost:add({vhost}, {who}), ok = rabbit_auth_backend_internal:set_permissions("
            f"{who}, {vhost}, {everything}, {everything}, {everything}, {who})"
        )

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all its queues; its clients are disconnected."""
        self.evaluate(f"rabbit_vhost:delete({erlang_string(name)}, {erlang_string(USER)})")

    def await_ctl(self, *arguments: str, says: str, timeout: float = 30.0) -> None:
        """Ask `rabbitmqctl` again and again until its answer contains *says*.

        Raises:
            ServerError: it did not in time.
        """
        deadline = time.monotonic() + timeout
        while says not in (answer := self.ctl(*arguments)):
            if time.monotonic() > deadline:
                raise ServerError(f"rabbitmqctl {' '.join(arguments)} did not say {says!r} but {answer!r}")

    def _own_settings(self) -> dict[str, str]:
        settings = {
            "listeners.tcp.default": f"{LOOPBACK}:{self.ports['amqp']}",
            "loopback_users": "none",
            "default_user": USER,
            "default_pass": PASSWORD,
            "log.file.level": "warning",
            # Absolute limits: shares of the machine would raise alarms on small ones.
            "disk_free_limit.absolute": "100MB",
            "vm_memory_high_watermark.absolute": "2GB",
        }
        if self.management:
            settings["management.tcp.ip"] = LOOPBACK
            settings["management.tcp.port"] = str(self.ports["management"])
        return settings

    def _write_text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")


def answers_amqp(host: str, port: int) -> bool:
    """Whether there is a broker that answers an AMQP header with the first frame of a connection."""
    with suppress(OSError), socket.create_connection((host, port), timeout=0.5) as probe:
        probe.settimeout(2.0)
        probe.sendall(AMQP_HEADER)
        return probe.recv(3) == METHOD_FRAME_ON_CHANNEL_0
    return False


def erlang_string(text: str) -> str:
    """*text* as an Erlang binary, whatever is in it."""
    return "<<" + ",".join(str(byte) for byte in text.encode()) + ">>"
