"""Documents: whatever an engine value holds comes back, and what was stored once is read for ever."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiki.codec import documents
from aiki.codec.documents import (
    DOCUMENT_BYTES_MAX,
    Document,
    dump_document,
    entry_from_document,
    entry_to_document,
    letter_from_document,
    letter_to_document,
    load_document,
    run_from_document,
    run_to_document,
    storable_text,
    text_of,
    weigh,
)
from aiki.codec.upgrades import upgraded
from aiki.engine.commands import DeadLetter
from aiki.engine.journal import EntryKind, Failure, InboxItem, InboxKind, JournalEntry, Wait, WaitKind
from aiki.engine.payload import Payload
from aiki.engine.state import Pair, Parent, RunState
from aiki.engine.status import RunStatus
from aiki.errors import StoreError
from aiki.testing.strategies import dead_letters, journal_entries, run_states

OPTIONS = bson.CodecOptions[Document](tz_aware=True, tzinfo=UTC)


def through_bson(document: Document) -> Document:
    return bson.decode(bson.encode(document), OPTIONS)


def through_json(document: Document) -> Document:
    return load_document(dump_document(document))


FORMS = pytest.mark.parametrize("through", [through_bson, through_json], ids=["bson", "json"])

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
FAILURE = Failure(
    type="app.NotSentError",
    message="refused\0",
    traceback="Traceback…",
    cause=Failure(type="OSError", message="\ud800"),
    task="send-email",
    attempts=3,
)
RUN = RunState(
    run_id="018f-run",
    incarnation="a1",
    workflow="user-onboarding",
    version="1.0.0",
    queue="user-onboarding@1.0.0",
    input=Payload('{"n":1208925819614629174706176}'),
    input_hash="0123456789abcdef",
    status=RunStatus.FAILED,
    created_at=AT,
    requested_by="event-1",
    pair=Pair(2, "dispatch"),
    cause="event-2",
    base_seq=4,
    learnt_seq=5,
    holder="worker-1",
    started_at=AT,
    dispatched_at=AT,
    lease_until=AT,
    waits=(Wait(kind=WaitKind.RETRY, operation="task:send-email:abc#1", due_at=AT, delay_ms=250, name="x"),),
    wake_at=AT,
    inbox=(InboxItem(id="i", kind=InboxKind.TASK, name="t", at=AT, epoch=1, failure=FAILURE, worker="w"),),
    seen=("event-3",),
    cancel_requested="event-4",
    pause_requested=True,
    pending=("child-1",),
    woken=True,
    forgiven=("task:send-email:abc#1",),
    recoveries=1,
    recoveries_max=3,
    alone=True,
    key="order-7",
    client="client-1",
    parent=Parent(run_id="p", incarnation="b2", operation="child:x:abc#1"),
    tags=("vip",),
    priority=2**70,
    note=Payload("null"),
    retention=86400.0,
    timeout_at=AT,
    trace="00-abc-def-01",
    result=Payload("[]"),
    failure=FAILURE,
    failed_operations=("task:send-email:abc#1",),
    finished_at=AT,
    expires_at=AT,
    expiring=True,
    revision=9,
)
ENTRY = JournalEntry(
    seq=5,
    epoch=2,
    at=AT,
    kind=EntryKind.ATTEMPT_FAILED,
    operation="task:send-email:abc#1",
    attempt=2,
    payload=Payload('"é"'),
    failure=FAILURE,
    source="item-1",
    name="go",
    due_at=AT,
    started_at=AT,
    worker="worker-1",
    where="app.py:42 in greet",
)
LETTER = DeadLetter(
    id="letter-1",
    reason="broken_json",
    at=AT,
    origin="aiki.events.3",
    body="{",
    run_id="r",
    workflow="w",
    detail="at 1",
)

# What version 1 has written. These never change: a new format gets samples of its own, and an upgrade.
STORED_RUN = (
    '{"run":"018f-run","inc":"a1","rev":9,"workflow":"user-onboarding","version":"1.0.0",'
    '"queue":"user-onboarding@1.0.0","status":"failed","created":1767323045678,"requested_by":"event-1",'
    '"input":"{\\"n\\":1208925819614629174706176}","input_hash":"0123456789abcdef",'
    '"pair":{"epoch":2,"dispatch":"dispatch"},"cause":"event-2","base":4,"learnt":5,"holder":"worker-1",'
    '"started":1767323045678,"dispatched":1767323045678,"lease":1767323045678,'
    '"waits":[{"kind":"retry","op":"task:send-email:abc#1","due":1767323045678,"delay_ms":250,"name":"x"}],'
    '"wake":1767323045678,"inbox":[{"id":"i","kind":"task","name":"t","at":1767323045678,"epoch":1,'
    '"failure":[{"type":"app.NotSentError","message":"refused\\u0000","traceback":"Traceback…",'
    '"task":"send-email","attempts":3},{"type":"OSError","message":{"$bytes":"eda080"}}],"worker":"w"}],'
    '"seen":["event-3"],"cancel":"event-4","pause":true,"pending":["child-1"],"woken":true,'
    '"forgiven":["task:send-email:abc#1"],"recoveries":1,"recoveries_max":3,"alone":true,"key":"order-7",'
    '"client":"client-1","parent":{"run":"p","inc":"b2","op":"child:x:abc#1"},"tags":["vip"],'
    '"priority":"1180591620717411303424","note":"null","retention":86400.0,"timeout":1767323045678,'
    '"trace":"00-abc-def-01","result":"[]","failure":[{"type":"app.NotSentError","message":"refused\\u0000",'
    '"traceback":"Traceback…","task":"send-email","attempts":3},'
    '{"type":"OSError","message":{"$bytes":"eda080"}}],"failed_ops":["task:send-email:abc#1"],'
    '"finished":1767323045678,"expires":1767323045678,"expiring":true,"v":1}'
)
STORED_ENTRY = (
    '{"seq":5,"epoch":2,"at":1767323045678,"kind":"attempt_failed","op":"task:send-email:abc#1","attempt":2,'
    '"payload":"\\"é\\"","failure":[{"type":"app.NotSentError","message":"refused\\u0000","traceback":"Traceback…",'
    '"task":"send-email","attempts":3},{"type":"OSError","message":{"$bytes":"eda080"}}],"source":"item-1",'
    '"name":"go","due":1767323045678,"started":1767323045678,"worker":"worker-1","where":"app.py:42 in greet","v":1}'
)
STORED_LETTER = (
    '{"id":"letter-1","reason":"broken_json","at":1767323045678,"origin":"aiki.events.3","body":"{","run":"r",'
    '"workflow":"w","detail":"at 1","v":1}'
)


def test_documents_of_version_1_are_read_for_ever() -> None:
    assert run_from_document(load_document(STORED_RUN)) == RUN
    assert entry_from_document(load_document(STORED_ENTRY)) == ENTRY
    stored = letter_from_document(load_document(STORED_LETTER), times=2, state="redriven", handled_at=AT)
    assert (stored.letter, stored.times, stored.state, stored.handled_at) == (LETTER, 2, "redriven", AT)


def test_documents_are_written_as_version_1() -> None:
    assert dump_document(run_to_document(RUN)) == STORED_RUN
    assert dump_document(entry_to_document(ENTRY)) == STORED_ENTRY
    assert dump_document(letter_to_document(LETTER)) == STORED_LETTER


@FORMS
@given(run=run_states())
def test_a_run_comes_back_as_it_was(through: Callable[[Document], Document], run: RunState) -> None:
    read = run_from_document(through(run_to_document(run)), last_seq=run.last_seq)

    assert read == run


@FORMS
@given(entry=journal_entries())
def test_an_entry_comes_back_as_it_was(through: Callable[[Document], Document], entry: JournalEntry) -> None:
    assert entry_from_document(through(entry_to_document(entry))) == entry


@FORMS
@given(letter=dead_letters())
def test_a_letter_comes_back_as_it_was(through: Callable[[Document], Document], letter: DeadLetter) -> None:
    document = through(letter_to_document(letter))

    assert letter_from_document(document, times=1, state="parked", handled_at=None).letter == letter


@FORMS
@given(text=st.text(st.characters(categories=["Cs", "Cc", "L", "So"])))
def test_any_text_comes_back_even_one_that_utf_8_cannot_carry(
    through: Callable[[Document], Document], text: str
) -> None:
    assert text_of(through({"text": storable_text(text)})["text"]) == text


@pytest.mark.parametrize(
    "shape",
    [documents._RUN, documents._ENTRY, documents._LETTER, documents._WAIT, documents._INBOX_ITEM, documents._FAILURE],
    ids=lambda shape: shape._form.__name__,
)
def test_no_field_of_a_value_is_forgotten(shape: Any) -> None:
    kept = [field.name for field in shape._fields]

    assert len({field.key for field in shape._fields}) == len(kept)
    # How far a journal goes is told by the journal; a cause is the next of the list that a chain is kept as.
    assert {field.name for field in fields(shape._form)} - set(kept) <= {"last_seq", "cause"}
    assert set(kept) <= {field.name for field in fields(shape._form)}


def test_only_what_is_empty_for_ever_is_left_out() -> None:
    defaults = {field.name: field.default for field in fields(RunState)}
    for field in documents._RUN._fields:
        if field.name in defaults and not repr(field.empty).startswith("<object"):
            assert field.empty == defaults[field.name], field.name
            assert field.empty in (None, "", 0, False, (), Pair(0, "")), field.name


def test_a_document_of_a_newer_aiki_is_refused() -> None:
    with pytest.raises(StoreError, match="format version 2; this Aiki reads up to 1"):
        run_from_document({**run_to_document(RUN), "v": 2})


@pytest.mark.parametrize("damage", [{"v": None}, {"status": "sideways"}, {"created": "yesterday"}, {"pair": 7}])
def test_a_damaged_document_is_refused_with_its_name(damage: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        run_from_document({**run_to_document(RUN), **damage})
    with pytest.raises(StoreError, match="018f-run"):
        run_from_document({"run": "018f-run", "v": 1})


def test_an_old_document_takes_every_step_to_the_current_format() -> None:
    upgrades: dict[int, Callable[[Document], Document]] = {
        1: lambda document: {**document, "names": [document["name"]]},
        2: lambda document: {**document, "count": len(document["names"])},
    }

    document = upgraded({"v": 1, "name": "Ada"}, upgrades, current=3)

    assert document["names"] == ["Ada"]
    assert document["count"] == 1
    assert upgraded({"v": 3}, upgrades, current=3) == {"v": 3}
    with pytest.raises(StoreError, match="format version 4"):
        upgraded({"v": 4}, upgrades, current=3)


def test_a_field_that_is_unknown_is_passed_by() -> None:
    assert run_from_document({**run_to_document(RUN), "invented": 1}) == RUN


@given(run=run_states())
def test_a_document_weighs_no_less_than_it_takes(run: RunState) -> None:
    document = run_to_document(run)

    assert weigh(document) >= len(bson.encode(document))


def test_the_largest_letter_fits_a_document() -> None:
    huge = replace(LETTER, body="🙂" * 10_000_000, detail="🙂" * 10_000_000)

    document = letter_to_document(huge)

    assert len(bson.encode(document)) <= DOCUMENT_BYTES_MAX
    assert "of 10,000,000 characters" in document["detail"]


@pytest.mark.parametrize("through", [through_bson, through_json])
@given(ids=st.lists(st.one_of(st.uuids().map(lambda uuid: uuid.hex), st.text("0aF-", max_size=32)), max_size=5))
def test_ids_of_events_come_back_as_they_were(through: Callable[[Document], Document], ids: list[str]) -> None:
    run = replace(RUN, seen=tuple(ids))

    assert run_from_document(through(run_to_document(run))) == run


def test_ten_thousand_ids_of_events_take_little_more_than_their_bytes() -> None:
    run = replace(RUN, seen=())
    one = replace(RUN, seen=("6f3f4d0c41a15d0e9a0e0a1b9c6d7e21",))
    many = replace(RUN, seen=tuple(f"{number:032x}" for number in range(10_000)))

    assert run_to_document(one)["seen"] == b"o?M\x0cA\xa1]\x0e\x9a\x0e\n\x1b\x9cm~!"
    assert len(bson.encode(run_to_document(many))) - len(bson.encode(run_to_document(run))) < 10_000 * 16 + 20


def test_payloads_are_never_parsed() -> None:
    run = replace(RUN, input=Payload("not even JSON"), result=Payload('{"a":1,"a":2}'))

    assert json.loads(dump_document(run_to_document(run)))["input"] == "not even JSON"
    assert run_from_document(through_json(run_to_document(run))) == run
