"""A private server ends with its owner, and is never mistaken for another process.

Erlang's port mapper is the server here: it is one as any other, and starts in milliseconds.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aiki.testing.servers import NOBODY, Epmd, ServerError, ServerStartError, free_ports
from aiki.testing.servers.processes import ServerProcess

SECONDS = 10.0


@pytest.fixture
def owner() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until the test ends it."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_server_ends_with_its_owner_and_leaves_nothing(tmp_path: Path, owner: "subprocess.Popen[bytes]") -> None:
    server = Epmd(tmp_path / "epmd", owner=owner.pid).start()
    process = server.process
    assert process is not None

    owner.kill()

    assert process.wait(timeout=SECONDS)
    wait_until_gone(server.folder)


def test_a_frozen_server_ends_with_its_owner_too(tmp_path: Path, owner: "subprocess.Popen[bytes]") -> None:
    server = Epmd(tmp_path / "epmd", owner=owner.pid).start()
    process = server.process
    assert process is not None
    server.freeze()

    owner.kill()

    assert process.wait(timeout=SECONDS)


def test_a_server_of_nobody_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    start = (
        "import pathlib, sys; from aiki.testing.servers import NOBODY, Epmd;"
        "Epmd(pathlib.Path(sys.argv[1]), owner=NOBODY).start()"
    )
    subprocess.run([sys.executable, "-c", start, str(tmp_path / "epmd")], check=True, timeout=30)

    with Epmd(tmp_path / "epmd", owner=NOBODY) as server:
        assert server.is_running
        assert server.is_ready()


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = Epmd(tmp_path / "epmd")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()

    with server:
        assert server.is_running


def test_whoever_names_the_same_folder_gets_the_same_server(tmp_path: Path) -> None:
    servers = [Epmd(tmp_path / "epmd") for _ in range(4)]

    with ThreadPoolExecutor() as pool:
        pids = {started.pid for started in pool.map(Epmd.start, servers)}

    servers[0].remove()
    assert len(pids) == 1
    assert not any(server.is_running for server in servers)


def test_a_server_comes_back_on_its_port(tmp_path: Path) -> None:
    with Epmd(tmp_path / "epmd") as server:
        before = (server.ports["epmd"], server.pid)

        server.kill()
        was_running = server.is_running
        server.start()

        assert not was_running
        assert server.is_ready()
        assert server.ports["epmd"] == before[0]
        assert server.pid != before[1]


def test_a_process_with_a_recycled_id_is_not_the_server(owner: "subprocess.Popen[bytes]") -> None:
    stranger = ServerProcess(pid=owner.pid, started=1)

    stranger.kill()

    assert not stranger.is_running
    assert owner.poll() is None


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Epmd(tmp_path / "first") as first:
        second = Epmd(tmp_path / "second")
        taken = first.ports["epmd"]
        second.folder.mkdir()
        (second.folder / "ports.json").write_text(f'{{"epmd": {taken}}}')
        second.is_ready = lambda: False  # type: ignore[method-assign]

        with pytest.raises(ServerStartError, match=r"(?s)ended before it was ready.*output\.log"):
            second.start()


def test_a_server_that_was_never_started_has_no_process(tmp_path: Path) -> None:
    server = Epmd(tmp_path / "epmd")

    server.stop()
    server.kill()

    assert not server.is_running
    with pytest.raises(ServerError, match="has no process"):
        _ = server.pid


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def wait_until_gone(folder: Path) -> None:
    """The guard removes the folder after the server has ended; it is no child of ours to wait for."""
    pause = threading.Event()
    for _ in range(int(SECONDS / 0.02)):
        if not folder.exists():
            return
        pause.wait(0.02)
    pytest.fail(f"{folder} is still there")
