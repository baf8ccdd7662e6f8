"""Which event loop the processes of the command line run on."""

import asyncio
import sys
from types import ModuleType

import pytest

from aiki.cli.loops import runner_of
from aiki.config import Settings
from aiki.errors import ConfigurationError
from tests.cli.processes import CommandLine

SERVICES = [["orchestrator"], ["worker"], ["dev"], ["bench"], ["bench", "--embedded"]]
by_service = pytest.mark.parametrize("command", SERVICES, ids=" ".join)


class FastLoop(asyncio.SelectorEventLoop):
    """Stands for the loop of uvloop, which need not be installed."""


@pytest.fixture
def _uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("uvloop")
    module.new_event_loop = FastLoop  # type: ignore[attr-defined]  # a module made here has what it is given
    monkeypatch.setitem(sys.modules, "uvloop", module)


@pytest.mark.usefixtures("_uvloop")
def test_uvloop_is_chosen_when_it_is_asked_for() -> None:
    with runner_of(Settings(uvloop=True)) as runner:
        assert type(runner.get_loop()) is FastLoop


@pytest.mark.usefixtures("_uvloop")
def test_otherwise_it_is_the_loop_of_asyncio_though_uvloop_is_there() -> None:
    with runner_of(Settings()) as runner:
        assert type(runner.get_loop()).__module__.startswith("asyncio.")


def test_uvloop_that_is_not_there_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    with pytest.raises(ConfigurationError, match="AIKI_UVLOOP asks for uvloop") as refused:
        runner_of(Settings(uvloop=True))
    assert refused.value.hint == "pip install 'aiki[uvloop]'"


@by_service
def test_the_processes_of_an_installation_ask_for_the_loop_that_is_set(aiki: CommandLine, command: list[str]) -> None:
    (aiki.folder / "uvloop.py").write_text("def new_event_loop(): raise SystemExit(7)\n", encoding="utf-8")

    assert aiki.run(*command, AIKI_UVLOOP="1").returncode == 7
