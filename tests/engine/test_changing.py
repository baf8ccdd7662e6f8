"""Changing values that do not change."""

import dataclasses
from dataclasses import FrozenInstanceError, dataclass

import pytest

from aiki.engine.changing import replace
from aiki.engine.state import Pair
from aiki.testing.builders import a_run


def test_a_changed_run_is_what_the_constructor_would_have_made() -> None:
    run = a_run(tags=("a",))

    changed = replace(run, last_seq=7, pair=Pair(3, "three"))

    assert changed == dataclasses.replace(run, last_seq=7, pair=Pair(3, "three"))
    assert (run.last_seq, run.pair) != (changed.last_seq, changed.pair)


def test_a_changed_run_is_frozen_like_any_other() -> None:
    changed = replace(a_run(), last_seq=7)

    with pytest.raises(FrozenInstanceError):
        changed.last_seq = 8  # type: ignore[misc]  # which is the point


def test_what_a_class_has_of_another_is_copied_too() -> None:
    @dataclass(frozen=True, slots=True)
    class Base:
        low: int

    @dataclass(frozen=True, slots=True)
    class Derived(Base):
        high: int

    changed = replace(Derived(1, 2), high=3)

    assert changed == Derived(1, 3)
    assert replace(changed, low=0) == Derived(0, 3)


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="RunState has no field 'sequence'"):
        replace(a_run(), sequence=7)  # type: ignore[call-arg]  # which is the point


def test_a_class_whose_constructor_does_more_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        low: int
        high: int

        def __post_init__(self) -> None:
            assert self.low < self.high

    with pytest.raises(TypeError, match="without __post_init__"):
        replace(Checked(1, 2), low=3)
