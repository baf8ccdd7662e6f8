"""The app: the user's modules with workflows and tasks, found, imported, and what can be served of them."""

import linecache
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from aiki.config import Settings
from aiki.errors import AikiError, ConfigurationError, listed
from aiki.sdk.registry import Registry
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow

__all__ = ["App", "load_app"]

_HINT = 'name it with --app shop.workflows, or under [tool.aiki] in pyproject.toml: app = ["shop.workflows"]'


@dataclass(frozen=True, slots=True)
class App:
    """The workflows and tasks of an application."""

    workflows: tuple[Workflow[..., Any], ...] = ()
    tasks: tuple[Task[..., Any], ...] = ()

    def select(self, queues: Sequence[str]) -> "App":
        """Keep what *queues* stand for: all versions of a workflow by its name, one by ``name@version``, a task queue.

        Raises:
            ConfigurationError: one stands for nothing; the message lists what there is.
        """
        if not queues:
            return self
        workflows: list[Workflow[..., Any]] = []
        tasks: list[Task[..., Any]] = []
        for queue in dict.fromkeys(queues):
            served = [workflow for workflow in self.workflows if queue in (workflow.name, workflow.queue)]
            executed = [task for task in self.tasks if task.options.queue == queue]
            if not served and not executed:
                raise ConfigurationError(f"the app has nothing for queue {queue!r}", hint=f"it has {self.names()}")
            workflows += served
            tasks += executed
        return App(_unique(workflows), _unique(tasks))

    def workflow(self, name: str, version: str | None = None) -> Workflow[..., Any]:
        """Find a workflow by its name: the version asked for, or the only one.

        Raises:
            ConfigurationError: it is not there, or has several versions and none was asked for.
        """
        versions = {workflow.version: workflow for workflow in self.workflows if workflow.name == name}
        if not versions:
            raise ConfigurationError(f"the app has no workflow {name!r}", hint=f"it has {self.names()}")
        if version is None and len(versions) > 1:
            raise ConfigurationError(
                f"workflow {name!r} has several versions", hint=f"say which with --version: {listed(versions)}"
            )
        if version is not None and version not in versions:
            raise ConfigurationError(
                f"the app has no version {version!r} of workflow {name!r}", hint=f"it has {listed(versions)}"
            )
        return versions[version] if version is not None else next(iter(versions.values()))

    def has(self, name: str) -> bool:
        """Tell whether there is a workflow of that name."""
        return any(workflow.name == name for workflow in self.workflows)

    def queues(self) -> tuple[str, ...]:
        """Tell the queues of its workflows, and those of tasks that are sent to other workers."""
        of_tasks = (task.options.queue for task in self.tasks if task.options.queue is not None)
        return tuple(dict.fromkeys([*(workflow.queue for workflow in self.workflows), *of_tasks]))

    def names(self) -> str:
        """List what there is, for a message."""
        workflows = listed([workflow.queue for workflow in self.workflows])
        queues = {task.options.queue for task in self.tasks if task.options.queue}
        return f"the workflows {workflows}" + (f" and the task queues {listed(queues)}" if queues else "")


def load_app(references: Sequence[str], settings: Settings) -> App:
    """Import the modules of *references* (``module``, ``module:name`` or ``file.py``), or those of the settings.

    Raises:
        ConfigurationError: there is none, one cannot be imported (with the line that failed), or holds no workflow.
    """
    names = tuple(references) or settings.app
    if not names:
        raise ConfigurationError("no app is named", hint=_HINT)
    for folder in (Path.cwd(), settings.root.absolute()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))

    found = [thing for name in names for thing in _things(name)]
    workflows = _unique([thing for thing in found if isinstance(thing, Workflow)])
    tasks = _unique([thing for thing in found if isinstance(thing, Task)])
    if not workflows and not tasks:
        raise ConfigurationError(
            f"there is no workflow in {', '.join(names)}", hint="decorate an async function with @aiki.workflow"
        )
    return App(workflows, tasks)


def _things(reference: str) -> list[object]:
    name, _, attribute = reference.partition(":")
    module = _imported(name)
    if not attribute:
        return list(vars(module).values())
    thing: object = module
    for part in attribute.split("."):
        if not hasattr(thing, part):
            raise ConfigurationError(f"module {name!r} has no {attribute!r}", hint="--app module:name")
        thing = getattr(thing, part)
    if isinstance(thing, Registry):
        return [*thing.workflows, *thing.tasks]
    return list(thing) if isinstance(thing, list | tuple) else [thing]


def _imported(name: str) -> ModuleType:
    if name.endswith(".py"):
        try:
            file = Path(name).expanduser().absolute()
            found = file.is_file()
        except (RuntimeError, ValueError) as error:  # No such user has a home, or no file can be called so.
            raise ConfigurationError(f"there is no file {name!r}: {error}", hint=_HINT) from error
        if not found:
            raise ConfigurationError(f"there is no file {name}", hint=_HINT)
        sys.path.insert(0, str(file.parent))
        name = file.stem
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"there is no module {error.name!r} (looked in {Path.cwd()} and on the path of Python)", hint=_HINT
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigurationError:
    """Say why an import failed, with the line of the user's own that did."""
    text = " ".join((error.message if isinstance(error, AikiError) else str(error)).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    hint = _own_line(error)
    if isinstance(error, AikiError) and error.hint:
        hint = f"{error.hint}; {hint}"
    return ConfigurationError(f"the app {name!r} cannot be imported: {what}", hint=hint)


def _own_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"at {_short(error.filename)}:{error.lineno}: {(error.text or '').strip()}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and not _is_foreign(frame.filename)
    ]
    if not frames:
        return "AIKI_DEBUG=1 shows where it comes from"
    last = frames[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    return f"at {_short(last.filename)}:{last.lineno}: {line}"


def _is_foreign(file: str) -> bool:
    """Whether a file is Aiki's, or installed: not what the user is working on."""
    here = str(Path(__file__).parent.parent)
    return file.startswith((here, sys.base_prefix + "/lib")) or "site-packages" in file


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _unique(things: Iterable[Any]) -> tuple[Any, ...]:
    return tuple({id(thing): thing for thing in things}.values())
