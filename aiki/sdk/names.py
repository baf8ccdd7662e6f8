"""Names: what a workflow, a version, a task, a queue may be called. They become queue names and routing keys."""

import re
from collections.abc import Callable
from typing import Any

from aiki.errors import InvalidNameError

__all__ = ["kebab_case", "name_of", "queue_name", "signal_name", "task_name", "version_name", "workflow_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = "aiki."


def kebab_case(name: str) -> str:
    """Write the name of a function as people write names: ``send_email`` becomes ``send-email``."""
    return name.strip("_").replace("_", "-").lower()


def name_of(function: Callable[..., Any], given: str | None, *, what: str) -> str:
    """Take the given name, or make one from the function's.

    Raises:
        InvalidNameError: the function is a lambda and no name was given.
    """
    if given is not None:
        return given
    if function.__name__ == "<lambda>":
        raise InvalidNameError(what, function.__name__, reason="a lambda has none; give it a name=")
    return kebab_case(function.__name__)


def workflow_name(name: str) -> str:
    """Check the name of a workflow.

    Raises:
        InvalidNameError: it cannot be a word of a routing key.
    """
    checked = _checked("workflow", name)
    if "." in checked:
        raise InvalidNameError("workflow", name, reason="it contains '.', which separates the words of a routing key")
    return checked


def version_name(version: str) -> str:
    """Check a version.

    Raises:
        InvalidNameError: it cannot be part of a queue's name.
    """
    return _checked("version", version)


def task_name(name: str) -> str:
    """Check the name of a task.

    Raises:
        InvalidNameError: it cannot be one.
    """
    return _checked("task", name)


def signal_name(name: str) -> str:
    """Check the name of a signal.

    Raises:
        InvalidNameError: it cannot be one.
    """
    return _checked("signal", name)


def queue_name(name: str) -> str:
    """Check the name of a task queue.

    Raises:
        InvalidNameError: it cannot be one, or is reserved.
    """
    checked = _checked("queue", name)
    if checked.startswith(_RESERVED):
        raise InvalidNameError("queue", name, reason=f"names that start with {_RESERVED!r} are Aiki's own")
    return checked


def _checked(what: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidNameError(what, repr(name), reason="it is no string")
    if not _NAME.fullmatch(name):
        raise InvalidNameError(what, name, reason=_reason(name))
    return name


def _reason(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > 100:
        return f"it has {len(name)} characters"
    wrong = sorted({character for character in name if not re.match(r"[A-Za-z0-9._-]", character)})
    if wrong:
        return f"it contains {', '.join(map(repr, wrong))}"
    return f"it starts with {name[0]!r}"
