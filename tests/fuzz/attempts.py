"""Trying what may be refused: with a value or with one kind of error, and any other error ends the test."""

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

__all__ = ["attempt", "fuzzed"]

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""How thoroughly to look: a little with the suite, long with `make fuzz`."""

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


def attempt(work: Callable[[], T], *, refusal: type[E]) -> tuple[T | None, E | None]:
    """Do *work*; give its value, or the *refusal* that it ended with."""
    try:
        return work(), None
    except refusal as error:
        return None, error
