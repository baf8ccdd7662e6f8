"""Exceptions as they are recorded, and what can be told of them afterwards."""

import re
import sys
import traceback
from collections.abc import Iterator

from aiki.engine.journal import Failure
from aiki.engine.retry import RetryAfter
from aiki.errors import ChildFailedError, TaskFailedError, type_name

__all__ = ["error_like", "failed_operations", "failure_of"]

# Enough to find the cause, little enough for a document that is read with every listing.
_MESSAGE_CHARACTERS_MAX = 4_000
_TRACEBACK_CHARACTERS_MAX = 12_000
_CAUSES_MAX = 5

_RETRY_AFTER = re.compile(r"\(after ([0-9.e+-]+) s\)$")


def failure_of(error: BaseException, *, causes_max: int = _CAUSES_MAX) -> Failure:
    """Write down an exception: what it was, what it said, where it came from, what led to it."""
    recorded = error.failure if isinstance(error, TaskFailedError | ChildFailedError) else None
    return Failure(
        type=type_name(type(error)),
        message=_shortened(_message(error), _MESSAGE_CHARACTERS_MAX),
        traceback=_traceback(error),
        cause=recorded if isinstance(recorded, Failure) else _cause(error, causes_max),
        task=error.task if isinstance(error, TaskFailedError) else None,
        attempts=error.attempts if isinstance(error, TaskFailedError) else None,
    )


def _cause(error: BaseException, causes_max: int) -> Failure | None:
    cause = next(iter(_led_to(error)), None)
    return None if cause is None or causes_max == 0 else failure_of(cause, causes_max=causes_max - 1)


def _led_to(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that there was an exception
        return "(it could not be written as text)"


def _traceback(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-20, chain=False)
    except Exception:  # noqa: BLE001 - a broken __repr__ or source file must not hide that there was an exception
        return None
    text = "".join(lines)
    # The end says most.
    return _text(text if len(text) <= _TRACEBACK_CHARACTERS_MAX else f"…{text[-_TRACEBACK_CHARACTERS_MAX:]}")


def _shortened(text: str, length: int) -> str:
    return _text(text if len(text) <= length else f"{text[:length]}…")


def _text(text: str) -> str:
    # A lone surrogate is no Unicode, and could not be stored.
    return text.encode(errors="backslashreplace").decode()


def failed_operations(error: BaseException) -> tuple[str, ...]:
    """Name the operations whose recorded failures led to *error*: what a retry of the run has to forgive."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, TaskFailedError | ChildFailedError) and each.operation:
            found[each.operation] = None
        waiting.extend(other for other in (each.__cause__, each.__context__) if other is not None)
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
    return tuple(found)


def error_like(failure: Failure) -> BaseException:
    """Make an exception that a retry policy judges as it would the one that was recorded elsewhere.

    Its class is looked up among the modules that are loaded; one that is not here counts as ``Exception``.
    """
    if failure.type == type_name(RetryAfter):
        after = _RETRY_AFTER.search(failure.message)
        return RetryAfter(float(after[1]) if after else 0.0)
    module, _, name = failure.type.rpartition(".")
    found = getattr(sys.modules.get(module or "builtins"), name, None)
    if isinstance(found, type) and issubclass(found, BaseException) and not issubclass(found, BaseExceptionGroup):
        return found.__new__(found)
    return Exception(failure.message)
