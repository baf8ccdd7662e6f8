"""Keeping workflows pure: what a workflow must not do raises an error that says where it belongs.

The private event loop offers no I/O. What goes past the event loop (threads, sockets,
processes) is caught here, while a workflow is driven on the thread in question. This
is a guard against mistakes and not a sandbox: whoever wants to get around it can.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from threading import get_ident
from typing import Any

from aiki.errors import WorkflowIOError

__all__ = ["driving", "install", "outside"]

# The threads on which a workflow is driven right now. An audit hook is one for the whole process, and so is this.
_threads: set[int] = set()

_FORBIDDEN = {
    "socket.__new__": "sockets",
    "socket.connect": "sockets",
    "socket.bind": "sockets",
    "socket.sendto": "sockets",
    "socket.getaddrinfo": "name resolution",
    "socket.gethostbyname": "name resolution",
    "socket.gethostbyaddr": "name resolution",
    "subprocess.Popen": "subprocesses",
    "os.system": "subprocesses",
    "os.exec": "subprocesses",
    "os.fork": "subprocesses",
    "os.forkpty": "subprocesses",
    "os.posix_spawn": "subprocesses",
    "os.spawn": "subprocesses",
    "_thread.start_new_thread": "threads",
    "_thread.start_joinable_thread": "threads",
}


@cache
def install() -> None:
    """Put the guards in place, for the life of the process. Doing it again does nothing."""
    sys.addaudithook(_on_audit)
    # Python 3.11 tells audit hooks nothing of new threads.
    threading.Thread.start = _guarded(threading.Thread.start)  # type: ignore[method-assign,assignment]


def _on_audit(event: str, args: tuple[Any, ...]) -> None:
    # This runs for every audited call of the process: nothing but a look at an empty set, as a rule.
    if _threads and event in _FORBIDDEN and get_ident() in _threads:
        raise WorkflowIOError(_FORBIDDEN[event])


def _guarded(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @wraps(start)
    def guarded(thread: threading.Thread) -> None:
        if get_ident() in _threads:
            raise WorkflowIOError("threads")
        start(thread)

    return guarded


class driving:  # noqa: N801 - reads as the statement that it is, and is cheaper than a generator
    """Inside the ``with`` block, the code that runs on this thread is a workflow's."""

    __slots__ = ("_nested", "_thread")

    def __enter__(self) -> None:
        self._thread = thread = get_ident()
        self._nested = thread in _threads
        _threads.add(thread)

    def __exit__(self, *exc_info: object) -> None:
        if not self._nested:
            _threads.discard(self._thread)


@contextmanager
def outside() -> Iterator[None]:
    """Lift the ban inside the ``with`` block, for code of ours that a workflow has called."""
    thread = get_ident()
    banned = thread in _threads
    _threads.discard(thread)
    try:
        yield
    finally:
        if banned:
            _threads.add(thread)
