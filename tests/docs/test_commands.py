"""Commands that the documentation shows exist, with their options, and do what is said where they can."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aiki.adapters.broker.socket import is_served
from aiki.cli.main import aiki
from tests.docs.blocks import run_python
from tests.docs.pages import PAGES, ROOT, Page, page
from tests.scenarios.cluster import eventually

ALL = [*PAGES, Page(ROOT / "deploy" / "README.md")]


def of_aiki(command: str) -> Iterator[list[str]]:
    """Find the calls of `aiki` in a line for a shell."""
    inner = command.replace("$(", "\n").replace(")", "\n") if "=$(" in command else command
    for line in inner.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "aiki":
            yield words[1:]


def parse(arguments: list[str]) -> click.Command:
    """Have click read *arguments* as the program would, and execute nothing."""
    command: click.Command = aiki
    context = click.Context(command, info_name="aiki")
    while isinstance(command, click.Group):
        _name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = click.Context(command, info_name=command.name, parent=context)
    command.parse_args(context, arguments)
    return command


@pytest.mark.parametrize("page", [page for page in ALL if page.commands()], ids=str)
def test_every_command_that_is_shown_can_be_given(page: Page) -> None:
    for command in page.commands():
        for arguments in of_aiki(command):
            parse(arguments)


def test_a_command_that_cannot_be_given_is_noticed() -> None:
    for wrong in ("aiki runs lits", "aiki dev --port 1", "run=$(aiki enqueue --wiat)"):
        with pytest.raises(click.UsageError):
            [parse(arguments) for arguments in of_aiki(wrong)]


@pytest.mark.parametrize("shown", [page for page in PAGES if page.commands("dev")], ids=str)
def test_the_commands_for_a_running_aiki_dev_succeed_one_after_the_other(shown: Page, tmp_path: Path) -> None:
    environment = _environment() | {"AIKI_DATA": str(tmp_path / "dev.db"), "EXAMPLES_SECONDS": "0.01"}
    command = [sys.executable, "-m", "aiki", "dev", "--app", "examples.user_onboarding"]
    with (tmp_path / "dev.log").open("wb") as log:
        dev = subprocess.Popen(
            [*command, "--app", "examples.order_fulfilment"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        eventually(lambda: is_served(tmp_path / "dev.db"), "aiki dev to listen")
        script = "\n".join(("set -eux", f'aiki() {{ "{sys.executable}" -m aiki "$@"; }}', *shown.commands("dev")))
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    finally:
        dev.send_signal(signal.SIGTERM)
        dev.wait(timeout=20)


@pytest.mark.parametrize(
    "shown",
    [page for page in PAGES if any(b.language == "python" and "servers" in b.words for b in page.blocks)],
    ids=str,
)
def test_the_python_for_servers_runs_against_them(
    shown: Page, amqp_url: str, mongodb_url: str, mongodb_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"AIKI_AMQP_URL": amqp_url, "AIKI_MONGODB_URL": mongodb_url, "AIKI_MONGODB_DATABASE": mongodb_database}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    orchestrator = subprocess.Popen(
        [sys.executable, "-m", "aiki", "orchestrator"], cwd=ROOT, env=_environment() | given
    )
    try:
        assert run_python(shown, servers=True) > 0
    finally:
        orchestrator.send_signal(signal.SIGTERM)
        orchestrator.wait(timeout=20)


def test_the_page_on_the_command_line_shows_what_can_be_run() -> None:
    assert len(page("cli.md").commands("dev")) > 10


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AIKI_")}
