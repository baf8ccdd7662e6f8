"""A project with an app, and the command line in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import CommandLine


@pytest.fixture
def aiki(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line in a project that has the shop as its app, and no servers."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path / "shop.py")
    (tmp_path / "pyproject.toml").write_text('[tool.aiki]\napp = ["shop"]\n', encoding="utf-8")
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.close()
