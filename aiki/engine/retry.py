"""Retry policies: whether a failed attempt is followed by another one, and when.

Delays are on a fixed grid, because each value has a queue in the broker whose
messages all wait equally long: what is recorded, documented and done agrees.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from aiki.errors import AikiError

__all__ = [
    "RETRY_GRID_MS",
    "RetryAfter",
    "RetryPolicy",
    "exponential",
    "fixed",
    "never",
    "seconds_of",
    "snap",
]

Errors = type[BaseException] | Iterable[type[BaseException]]

_GRID_FIRST_MS, _GRID_LAST_MS, _STEPS_PER_DECADE = 100, 3_600_000, 20


def _grid() -> tuple[int, ...]:
    values, step = [], 0
    while (value := round(_GRID_FIRST_MS * 10 ** (step / _STEPS_PER_DECADE))) < _GRID_LAST_MS:
        values.append(value)
        step += 1
    return (*values, _GRID_LAST_MS)


RETRY_GRID_MS = _grid()
"""Milliseconds from 100 ms to 1 h, 20 steps per decade: neighbours differ by 12 %."""


def snap(delay_ms: float, *, at_most: float | None = None) -> int:
    """Move a delay to the nearest value of the grid, in milliseconds.

    Delays below the grid are waited for in place and delays above it by the store's
    timers; both stay as they are, rounded to whole milliseconds.
    """
    if delay_ms < _GRID_FIRST_MS or delay_ms > _GRID_LAST_MS:
        return round(delay_ms)
    above = bisect_left(RETRY_GRID_MS, delay_ms)
    candidates = RETRY_GRID_MS[max(above - 1, 0) : above + 1]
    allowed = [value for value in candidates if at_most is None or value <= at_most] or [round(delay_ms)]
    return min(allowed, key=lambda value: abs(value - delay_ms))


def seconds_of(duration: timedelta | float) -> float:
    """Read a duration, given as ``timedelta`` or in seconds, as seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


class RetryAfter(AikiError):  # noqa: N818 - it is an instruction more than an error, and reads as one where it is raised
    """Raised by a task to say when its next attempt should be. The attempt counts as failed.

    The policy still decides whether there is a next attempt; the delay replaces the policy's.
    """

    def __init__(self, delay: timedelta | float, reason: str = "the task asked to be retried later") -> None:
        self.delay_seconds = seconds_of(delay)
        if not 0 <= self.delay_seconds < float("inf"):
            raise ValueError(f"RetryAfter takes a delay of 0 seconds or more, not {delay!r}")
        super().__init__(f"{reason} (after {self.delay_seconds:g} s)")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a task is tried again. Make one with ``never()``, ``fixed()`` or ``exponential()``."""

    max_attempts: int = 1
    """How many attempts there are in all, the first one included."""
    base_delay: float = 0.0
    """Seconds before the second attempt."""
    factor: float = 1.0
    max_delay: float | None = None
    """Seconds that no delay exceeds, before jitter."""
    jitter: bool = False
    """Full jitter: a delay is drawn evenly between zero and what it would have been."""
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what makes no sense, where it is written."""
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ValueError(f"max_attempts must be a whole number of 1 or more, not {self.max_attempts!r}")
        if not 0 <= self.base_delay < float("inf"):
            raise ValueError(f"the delay must be 0 seconds or more, not {self.base_delay!r}")
        if not 1 <= self.factor < float("inf"):
            raise ValueError(f"factor must be 1 or more, not {self.factor!r}")
        if self.max_delay is not None and not 0 <= self.max_delay < float("inf"):
            raise ValueError(f"max_delay must be 0 seconds or more, not {self.max_delay!r}")
        for error in (*self.retry_on, *self.give_up_on):
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise ValueError(f"retry_on and give_up_on take exception classes, not {error!r}")

    def retries(self, error: BaseException) -> bool:
        """Whether *error* is one that may go away by itself."""
        if isinstance(error, self.give_up_on):
            return False
        return isinstance(error, (*self.retry_on, RetryAfter))

    def next_delay(self, failed_attempts: int, error: BaseException, random: float = 1.0) -> timedelta | None:
        """Tell how long to wait after the attempt with that number failed, or ``None`` to give up.

        *random* is an even draw from [0, 1), used for jitter only.
        """
        if failed_attempts >= self.max_attempts or not self.retries(error):
            return None
        if isinstance(error, RetryAfter):
            return timedelta(milliseconds=snap(error.delay_seconds * 1000))
        return timedelta(milliseconds=snap(self._delay_ms(failed_attempts, random), at_most=self._delay_ms_max))

    @property
    def _delay_ms_max(self) -> float | None:
        return None if self.max_delay is None else self.max_delay * 1000

    def _delay_ms(self, failed_attempts: int, random: float) -> float:
        try:
            delay = self.base_delay * self.factor ** (failed_attempts - 1)
        except OverflowError:
            delay = float("inf")
        # A year bounds what a forgotten max_delay can do; no timer needs more.
        delay = min(delay, 365 * 86_400.0 if self.max_delay is None else self.max_delay)
        return delay * 1000 * (random if self.jitter else 1.0)


def _classes(errors: Errors) -> tuple[type[BaseException], ...]:
    return (errors,) if isinstance(errors, type) else tuple(errors)


def never() -> RetryPolicy:
    """Make a policy of one attempt."""
    return RetryPolicy(max_attempts=1)


def fixed(
    max_attempts: int = 3,
    delay: timedelta | float = 1.0,
    *,
    retry_on: Errors = Exception,
    give_up_on: Errors = (),
) -> RetryPolicy:
    """Make a policy with the same *delay* before each further attempt.

    Raises:
        ValueError: a value makes no sense.
    """
    return RetryPolicy(
        max_attempts=max_attempts,
        base_delay=seconds_of(delay),
        retry_on=_classes(retry_on),
        give_up_on=_classes(give_up_on),
    )


def exponential(
    max_attempts: int = 3,
    base_delay: timedelta | float = 1.0,
    factor: float = 2.0,
    max_delay: timedelta | float | None = None,
    jitter: bool = False,
    *,
    retry_on: Errors = Exception,
    give_up_on: Errors = (),
) -> RetryPolicy:
    """Make a policy whose delays grow: ``base_delay * factor ** (failed attempts - 1)``, at most *max_delay*.

    Raises:
        ValueError: a value makes no sense.
    """
    return RetryPolicy(
        max_attempts=max_attempts,
        base_delay=seconds_of(base_delay),
        factor=factor,
        max_delay=None if max_delay is None else seconds_of(max_delay),
        jitter=jitter,
        retry_on=_classes(retry_on),
        give_up_on=_classes(give_up_on),
    )
