"""Ends a server when the process that it belongs to is gone.

Run as a program of its own, ``guard.py OWNER SERVER FOLDER`` (process ids, and the folder to remove
with the server). It imports little and keeps no files open: there is one for each server that runs.
"""

import contextlib
import os
import select
import shutil
import signal
import sys

__all__: list[str] = []


def main(owner: int, server: int, folder: str) -> None:
    """Watch both processes until one of them ends; when it is the owner, end the server too."""
    watched_server = _watch(server)
    if watched_server is None:
        return
    watched_owner = _watch(owner)
    if os.fork():
        os._exit(0)  # Tells the starter that the watch has begun; and the guard becomes nobody's child.

    if watched_owner is not None and not _ended_first(watched_owner, other=watched_server):
        return
    with contextlib.suppress(ProcessLookupError):
        # The server leads its own group, whose id stays taken as long as the watched process is there.
        os.killpg(server, signal.SIGKILL)
    _wait(watched_server)
    shutil.rmtree(folder, ignore_errors=True)


def _watch(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ended_first(watched: int, *, other: int) -> bool:
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    poller.register(other, select.POLLIN)
    ended = {descriptor for descriptor, _ in poller.poll()}
    return other not in ended


def _wait(watched: int) -> None:
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    poller.poll(10_000)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
