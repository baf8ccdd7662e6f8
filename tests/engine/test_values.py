"""Rule 15 of the design (payloads are canonical JSON text), and the names of things."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.engine.ids import (
    AIKI_NAMESPACE,
    child_run_id,
    idempotency_key_of,
    letter_id_of,
    partition_of,
    run_id_at,
    run_id_for_key,
    run_id_within,
    task_id_of,
)
from aiki.engine.payload import digest, dump_payload, load_payload
from aiki.errors import PayloadError, PayloadTooLargeError
from aiki.testing.strategies import json_values


@given(json_values())
def test_rule_15_whatever_json_can_say_comes_back_as_it_was(value: object) -> None:
    payload = dump_payload(value)

    assert load_payload(payload) == value
    assert payload.encode().decode() == payload


@given(st.dictionaries(st.text(), st.integers()))
def test_rule_15_equal_values_have_equal_text(value: dict[str, int]) -> None:
    backwards = dict(reversed(list(value.items())))

    assert dump_payload(backwards) == dump_payload(value)
    assert digest(dump_payload(backwards)) == digest(dump_payload(value))


def test_rule_15_numbers_of_any_size_and_lone_surrogates_survive() -> None:
    value = [2**80, "\ud800", "\0", "😀"]

    assert load_payload(dump_payload(value)) == value


def test_payloads_stay_readable() -> None:
    assert dump_payload({"name": "Åsa"}) == '{"name":"Åsa"}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, {"a": b"bytes"}])
def test_rule_15_what_json_cannot_say_is_refused_where_it_is_made(value: object) -> None:
    with pytest.raises(PayloadError, match="the result of 'charge' cannot be written as JSON"):
        dump_payload(value, what="result of 'charge'")


def test_rule_15_nesting_without_end_is_refused() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(PayloadError):
        dump_payload(value)


def test_a_payload_over_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"takes 12 bytes as JSON, 11 are allowed"):
        dump_payload("x" * 10, bytes_max=11)


def test_run_ids_are_version_7_and_sort_by_time() -> None:
    early = run_id_at(datetime(2026, 1, 1, tzinfo=UTC), b"\xff" * 10)
    late = run_id_at(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), b"\x00" * 10)

    assert UUID(early).version == 7
    assert UUID(early).variant == "specified in RFC 4122"
    assert early < late


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_run_ids_keep_74_bits_of_what_is_random(one: bytes, other: bytes) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    mask = (1 << 74) - 1

    same_bits = int.from_bytes(one, "big") & mask == int.from_bytes(other, "big") & mask
    assert (run_id_at(now, one) == run_id_at(now, other)) is same_bits


@given(
    st.integers(1, 16).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
    st.binary(min_size=10, max_size=10),
)
def test_a_run_id_may_be_made_for_a_partition(place: tuple[int, int], entropy: bytes) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    run_id = run_id_within(*place, now, entropy)

    assert UUID(run_id).version == 7
    # All but the last twelve bits are as random as those of any other.
    assert run_id[:-3] == run_id_at(now, entropy)[:-3]
    assert partition_of(run_id, place[1]) == place[0] or run_id == run_id_at(now, entropy)


def test_hardly_any_run_id_is_of_another_partition_than_was_asked_for() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = [run_id_within(5, 8, now, number.to_bytes(10, "big")) for number in range(2000)]

    assert sum(partition_of(run_id, 8) == 5 for run_id in made) > 1990


def test_a_key_names_one_run_of_one_workflow() -> None:
    assert run_id_for_key("greet", "k") == run_id_for_key("greet", "k")
    assert run_id_for_key("greet", "k") != run_id_for_key("other", "k")
    assert UUID(run_id_for_key("greet", "k")).version == 5


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_names_are_the_uuids_that_anybody_can_compute(key: str) -> None:
    assert run_id_for_key("greet", key) == str(uuid5(AIKI_NAMESPACE, f"run\0greet\0{key}"))


def test_names_of_different_things_never_meet() -> None:
    names = {
        idempotency_key_of("r", "i", "o#1"),
        task_id_of("r", "i", "o#1", 1),
        task_id_of("r", "i", "o#1", 2),
        child_run_id("r", "i", "o#1", 1),
        letter_id_of("r", "i", 1),
    }

    assert len(names) == 5


def test_a_run_belongs_to_one_partition_by_the_crc_of_its_id() -> None:
    assert partition_of("abc", 8) == 0x352441C2 % 8
    assert {partition_of(str(number), 8) for number in range(200)} == set(range(8))


def test_json_text_is_what_json_says_it_is() -> None:
    assert json.loads(dump_payload({"b": 1, "a": [True, None]})) == {"a": [True, None], "b": 1}
