"""Finding the user's app, and what of it a worker serves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiki.cli.app import App, load_app
from aiki.config import Settings
from aiki.errors import ConfigurationError

SOURCE = """
from aiki import Run, task, workflow
from aiki.sdk.registry import Registry

@task(queue="gpu")
async def render(frame: int) -> int:
    return frame

@task
async def local() -> None: ...

@workflow(version="1.0.0")
async def film(run: Run) -> None: ...

old = film

@workflow(name="film", version="2.0.0")
async def film_again(run: Run) -> None: ...

@workflow
async def photo(run: Run) -> None: ...

some = [photo]
registry = Registry(film, render)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    (tmp_path / "studio.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield Settings(root=tmp_path)
    sys.path[:] = path
    sys.modules.pop("studio", None)


def queues(app: App) -> set[str]:
    return {workflow.queue for workflow in app.workflows} | {task.name for task in app.tasks}


def test_a_module_gives_all_workflows_and_tasks_that_are_in_it_once(settings: Settings) -> None:
    app = load_app(["studio"], settings)

    assert sorted(workflow.queue for workflow in app.workflows) == ["film@1.0.0", "film@2.0.0", "photo@1.0.0"]
    assert sorted(task.name for task in app.tasks) == ["local", "render"]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("studio:photo", {"photo@1.0.0"}),
        ("studio:some", {"photo@1.0.0"}),
        ("studio:registry", {"film@1.0.0", "render"}),
        ("studio.py:film_again", {"film@2.0.0"}),
    ],
)
def test_a_name_in_a_module_gives_that_alone(settings: Settings, reference: str, found: set[str]) -> None:
    assert queues(load_app([reference], settings)) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], {"film@1.0.0", "film@2.0.0", "photo@1.0.0", "render", "local"}),
        (["film"], {"film@1.0.0", "film@2.0.0"}),
        (["film@2.0.0"], {"film@2.0.0"}),
        (["film@2.0.0", "photo", "film"], {"film@1.0.0", "film@2.0.0", "photo@1.0.0"}),
        (["gpu"], {"render"}),
    ],
)
def test_a_queue_stands_for_all_versions_for_one_or_for_tasks(
    settings: Settings, names: list[str], found: set[str]
) -> None:
    assert queues(load_app(["studio"], settings).select(names)) == found


def test_an_unknown_queue_is_refused_with_all_that_there_are(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"'film@2\.0\.0', 'photo@1\.0\.0' and the task queues 'gpu'"):
        load_app(["studio"], settings).select(["local"])


def test_a_workflow_with_several_versions_needs_one_to_be_said(settings: Settings) -> None:
    app = load_app(["studio"], settings)

    assert app.workflow("photo").version == "1.0.0"
    assert app.workflow("film", "2.0.0").version == "2.0.0"
    with pytest.raises(ConfigurationError, match=r"--version: '1\.0\.0', '2\.0\.0'"):
        app.workflow("film")
    with pytest.raises(ConfigurationError, match="no version '3'"):
        app.workflow("film", "3")
