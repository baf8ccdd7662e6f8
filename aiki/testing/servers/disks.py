"""A small disk for a server: a file system in memory that really runs full.

It is mounted in a namespace of its own, which the server joins. So it needs no privileges where users
may make namespaces, nobody else sees it, and it is gone when the last process in it is, however that ends.
"""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from aiki.testing.servers.node import ServerError
from aiki.testing.servers.programs import SYSTEM_PATH

__all__ = ["SmallDisk"]

_MOUNTED = "mounted"
_BLOCK = 256 * 1024


class SmallDisk:
    """*size_bytes* of room at *folder*, for the processes that are started by `joining`. A context manager."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        self.folder = folder.absolute()
        self.size_bytes = size_bytes
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Mount it.

        Raises:
            ServerError: this system does not let us.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size={self.size_bytes} tmpfs "$0" && echo {_MOUNTED} && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(self.folder)],
            env={"PATH": SYSTEM_PATH},
            stdin=subprocess.PIPE,  # It holds the disk until this is closed, by us or by our end.
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != _MOUNTED:
            _, trouble = self._holder.communicate()
            raise ServerError(
                f"a small disk cannot be mounted: {trouble.strip()}",
                hint="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or run this as root",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            self._holder.communicate()

    def joining(self, command: Sequence[str]) -> Sequence[str]:
        """Write *command* so that the process, which stays the same one, sees the disk."""
        nsenter = ["/usr/bin/nsenter", f"--target={self._pid}", "--user", "--mount", "--preserve-credentials"]
        return [*nsenter, f"--wd={os.sep}", *command]

    @property
    def room(self) -> int:
        """The bytes that are free."""
        found = os.statvfs(self._seen_from_outside)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leaving: int = 0) -> None:
        """Fill it up, but for *leaving* bytes."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as filler:  # It ends in "no space left".
            while self.room > leaving:
                filler.write(bytes(min(_BLOCK, self.room - leaving)))

    def make_room(self) -> None:
        """Take away what `fill` wrote."""
        self._filler.unlink(missing_ok=True)

    @property
    def _pid(self) -> int:
        if self._holder is None:
            raise ServerError("the disk is not mounted", hint="use it in a `with` statement")
        return self._holder.pid

    @property
    def _seen_from_outside(self) -> Path:
        return Path(f"/proc/{self._pid}/root{self.folder}")

    @property
    def _filler(self) -> Path:
        return self._seen_from_outside / "filler"
