"""Whatever a store hands back is read as a value, or refused as damaged: never anything else."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.adapters.store.pages import Cursor
from aiki.codec.documents import (
    DOCUMENT_BYTES_MAX,
    LETTER_CHARACTERS_MAX,
    Document,
    entry_from_document,
    entry_to_document,
    letter_from_document,
    letter_to_document,
    load_document,
    run_from_document,
    run_to_document,
)
from aiki.codec.messages import encode_answer
from aiki.codec.upgrades import upgraded
from aiki.engine.commands import DeadLetter
from aiki.engine.payload import Payload, load_payload
from aiki.engine.queries import DeadLetterFound
from aiki.errors import RecordMismatchError, StoreError
from aiki.testing import strategies
from tests.fuzz.attempts import attempt, fuzzed

AT = datetime(2026, 1, 1, tzinfo=UTC)


def read_letter(document: Document) -> object:
    return letter_from_document(document, times=1, state="parked", handled_at=None)


# What BSON and JSON can put in the place of anything.
anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)

KINDS = [
    pytest.param(strategies.run_states().map(run_to_document), run_from_document, id="run"),
    pytest.param(strategies.journal_entries().map(entry_to_document), entry_from_document, id="entry"),
    pytest.param(strategies.dead_letters().map(letter_to_document), read_letter, id="letter"),
]


@pytest.mark.parametrize(("documents", "read"), KINDS)
@fuzzed
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused(
    documents: st.SearchStrategy[Document], read: Callable[[Document], object], data: st.DataObject
) -> None:
    document = dict(data.draw(documents))
    for key in data.draw(st.lists(st.sampled_from(sorted(document)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            document.pop(key, None)
        else:
            document[key] = data.draw(anything)

    _, refusal = attempt(lambda: read(document), refusal=StoreError)
    assert refusal is None or refusal.hint


@pytest.mark.parametrize("read", [run_from_document, entry_from_document, read_letter])
@fuzzed
@given(document=st.dictionaries(st.text(max_size=5), anything, max_size=4), version=anything)
def test_a_document_of_somebody_else_is_refused(
    read: Callable[[Document], object], document: Document, version: object
) -> None:
    with pytest.raises(StoreError):
        read({**document, "v": version})


@fuzzed
@given(text=st.text(max_size=40) | anything.map(lambda value: json.dumps(value, default=str)))
def test_a_text_that_a_file_holds_is_read_or_refused(text: str) -> None:
    for damaged in (text, "[" * 100_000, '{"v":' + "9" * 5_000 + "}", '{"a":{"$bytes":"zz"}}', '{"a":{"$bytes":7}}'):
        document, refusal = attempt(partial(load_document, damaged), refusal=StoreError)
        assert refusal or isinstance(document, dict)


@fuzzed
@given(version=anything)
def test_an_upgrade_ends_whatever_the_version_says(version: object) -> None:
    steps: dict[int, Callable[[Document], Document]] = {0: lambda document: document, 1: lambda document: document}

    _, refusal = attempt(lambda: upgraded({"v": version}, steps, current=2), refusal=StoreError)
    assert refusal or version in (0, 1, 2)


@fuzzed
@given(text=st.text(max_size=30) | st.from_regex(r"[A-Za-z0-9_-]{0,40}", fullmatch=True))
def test_a_cursor_that_was_made_up_is_refused(text: str) -> None:
    _, refusal = attempt(lambda: Cursor.load(text), refusal=StoreError)
    assert refusal is None or "is no cursor" in refusal.message


@pytest.mark.parametrize("character", ["\0", "\x1b", '"', "\\", "é", "🙂", "x"])
def test_the_largest_letter_of_any_character_is_kept_and_can_be_shown(character: str) -> None:
    body = character * (LETTER_CHARACTERS_MAX + 1)
    document = letter_to_document(DeadLetter(id="l", reason="r", at=AT, origin="q", body=body))

    assert len(bson.encode(document)) < DOCUMENT_BYTES_MAX
    assert f"of {len(body):,} characters" in document["detail"]
    stored = letter_from_document(document, times=1, state="parked", handled_at=None)
    assert encode_answer(DeadLetterFound(letter=stored))


@pytest.mark.parametrize("text", ["", "not json", "[" * 100_000, '{"a":' + "9" * 5_000 + "}", "{]"])
def test_a_payload_that_is_none_is_told_as_a_record_that_does_not_fit(text: str) -> None:
    with pytest.raises(RecordMismatchError, match="no JSON"):
        load_payload(Payload(text))
