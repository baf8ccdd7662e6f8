"""Who should own which partition: computed alike by everybody who knows who is there."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.orchestrator.ownership import preferred_owners

members = st.sets(st.text(min_size=1, max_size=12), min_size=1, max_size=12)


@given(names=members, partitions=st.integers(min_value=1, max_value=64))
def test_nobody_owns_more_than_a_fair_share(names: set[str], partitions: int) -> None:
    owned = Counter(preferred_owners(names, partitions))

    assert set(owned) <= names
    assert owned.total() == partitions
    assert max(owned.values()) <= -(-partitions // len(names))


@given(names=members, partitions=st.integers(min_value=1, max_value=64))
def test_the_order_in_which_members_are_known_makes_no_difference(names: set[str], partitions: int) -> None:
    assert preferred_owners(sorted(names), partitions) == preferred_owners(sorted(names, reverse=True), partitions)


@pytest.mark.parametrize("gone", ["a", "b", "c", "d"])
def test_losing_a_member_moves_few_partitions_of_the_others(gone: str) -> None:
    before = preferred_owners("abcd", 64)

    after = preferred_owners(set("abcd") - {gone}, 64)

    moved = sum(one != other for one, other in zip(before, after, strict=True) if one != gone)
    assert moved <= 64 // 3
