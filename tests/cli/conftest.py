"""A project with an app, and the command line in it."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import CommandLine


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Let what is started hear Ctrl-C. A suite in the background of a script inherits that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def aiki(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line in a project that has the shop as its app, and no servers."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path / "shop.py")
    (tmp_path / "pyproject.toml").write_text('[tool.aiki]\napp = ["shop"]\n', encoding="utf-8")
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.close()
