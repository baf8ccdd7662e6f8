"""Options of tasks and runs: values that are checked where they are written."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from aiki.engine.retry import RetryPolicy, never, seconds_of
from aiki.errors import InvalidOptionError
from aiki.sdk.names import queue_name

__all__ = ["UNSET", "Confirm", "Duration", "OnConflict", "TaskOptions", "Unset", "WorkflowOptions"]
__all__ += ["check_text", "moment", "seconds", "tags_of"]

Duration = timedelta | float
"""A ``timedelta``, or seconds."""

OnConflict = Literal["raise", "use_existing"]
Confirm = Literal["broker", "stored"]


ONCE = never()


class Unset:
    """Says that an option was not given, where ``None`` is a value of its own."""

    def __repr__(self) -> str:
        return "unset"


UNSET = Unset()

# A hundred years: added to the present it is still a date.
_SECONDS_MAX = 100 * 365 * 86_400.0
_KEY_CHARACTERS_MAX = 512
_TAGS_MAX = 32
_TAG_CHARACTERS_MAX = 100


def seconds(option: str, duration: Duration | None, *, zero: bool = False) -> float | None:
    """Read a duration as seconds.

    Raises:
        InvalidOptionError: it is negative, zero (unless *zero* is allowed), longer than a century, or no duration.
    """
    if duration is None:
        return None
    expected = f"a timedelta or a number of seconds, {'0 or more' if zero else 'more than 0'} and at most a century"
    if isinstance(duration, bool) or not isinstance(duration, timedelta | int | float):
        raise InvalidOptionError(option, duration, expected=expected)
    value = seconds_of(duration)
    if not 0 <= value <= _SECONDS_MAX or (value == 0 and not zero):
        raise InvalidOptionError(option, duration, expected=expected)
    return value


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a task is executed."""

    retry: RetryPolicy = ONCE
    timeout: float | None = None
    """Seconds that one attempt may take."""
    heartbeat_timeout: float | None = None
    """Seconds that may pass between two heartbeats."""
    queue: str | None = None
    """Whose workers execute it; ``None``: the worker that executes the workflow."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, where it is written."""
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidOptionError("retry", self.retry, expected="a policy: never(), fixed() or exponential()")
        if self.queue is not None:
            queue_name(self.queue)


@dataclass(frozen=True, slots=True)
class WorkflowOptions:
    """How a run is started and kept."""

    idempotency_key: str | None = None
    """The same key stands for the same run, whoever asks and however often."""
    on_conflict: OnConflict = "raise"
    """What to do when the key stands for a run with another input."""
    confirm: Confirm = "broker"
    """Whether ``enqueue`` returns when the broker has the run, or when it is stored as well."""
    delay: float | None = None
    """Seconds before the run starts."""
    priority: int = 0
    """From 0 to 255. RabbitMQ 4.0 and later serve 5 and above first; before 4.0 it is recorded and nothing more."""
    tags: tuple[str, ...] = ()
    retention: float | None = None
    """Seconds that the finished run is kept."""
    timeout: float | None = None
    """Seconds that the whole run may take."""
    recoveries_max: int = 3
    """How many workers in a row a run may lose before it is parked."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, where it is written."""
        if self.idempotency_key is not None:
            check_text("idempotency_key", self.idempotency_key, characters_max=_KEY_CHARACTERS_MAX)
        if self.on_conflict not in ("raise", "use_existing"):
            raise InvalidOptionError("on_conflict", self.on_conflict, expected="'raise' or 'use_existing'")
        if self.confirm not in ("broker", "stored"):
            raise InvalidOptionError("confirm", self.confirm, expected="'broker' or 'stored'")
        _check_whole_number("priority", self.priority, 0, 255)
        _check_whole_number("recoveries_max", self.recoveries_max, 0, 1_000)
        if len(self.tags) > _TAGS_MAX or not all(_is_text(tag, _TAG_CHARACTERS_MAX) for tag in self.tags):
            expected = f"at most {_TAGS_MAX} strings of {_text_of(_TAG_CHARACTERS_MAX)}"
            raise InvalidOptionError("tags", self.tags, expected=expected)


def check_text(option: str, value: str, *, characters_max: int) -> str:
    """Return *value*, a text that is sent and kept as it is, if it can be.

    Raises:
        InvalidOptionError: it is empty, too long, no text, or holds half a surrogate pair.
    """
    if not _is_text(value, characters_max):
        raise InvalidOptionError(option, value, expected=_text_of(characters_max))
    return value


def _text_of(characters_max: int) -> str:
    return f"1 to {characters_max} characters of valid Unicode"


def _is_text(value: object, characters_max: int) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= characters_max:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def moment(option: str, value: datetime | None) -> datetime | None:
    """Give *value* as a time in UTC, which is how all moments are sent.

    Raises:
        InvalidOptionError: it does not tell its time zone, is no ``datetime``, or in UTC beyond all of them.
    """
    if value is None:
        return None
    expected = "a datetime with a time zone"
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidOptionError(option, value, expected=expected)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidOptionError(option, value, expected=f"{expected}, in the years 1 to 9999 in UTC too") from error


def _check_whole_number(option: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidOptionError(option, value, expected=f"a whole number from {least} to {most}")


def tags_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Take tags as given, each once.

    Raises:
        InvalidOptionError: a single string was given, which would become a tag for each letter.
    """
    if isinstance(tags, str):
        raise InvalidOptionError("tags", tags, expected="a list or tuple of strings")
    return tuple(dict.fromkeys(tags))
