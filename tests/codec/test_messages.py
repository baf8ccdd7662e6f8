"""The format of messages: what is written comes back, and what is strange is refused in one way."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiki.codec import envelope, messages
from aiki.codec.envelope import BROKEN_JSON, TOO_LARGE, UNKNOWN_TYPE, UNKNOWN_VERSION, WRONG_CONTENT, EnvelopeCodec
from aiki.codec.schema import ID_CHARACTERS_MAX, Limits, compile_schema
from aiki.engine.commands import DeadLetter, ExecuteTask, Notice, NotifyWorker, WorkerCommand
from aiki.engine.events import CancelRequested, Event, JournalAppended, RunFailed, SignalSent, TaskFinished
from aiki.engine.journal import EntryKind, Failure, JournalEntry
from aiki.engine.payload import Payload
from aiki.engine.queries import Answer, GetRun, Query
from aiki.engine.state import Pair
from aiki.errors import PayloadError, PayloadTooLargeError, UndecodableError
from aiki.testing import strategies

AT = datetime(2026, 11, 22, 10, 0, 0, 123000, tzinfo=UTC)
REASONS = {None, BROKEN_JSON, TOO_LARGE, UNKNOWN_TYPE, UNKNOWN_VERSION, WRONG_CONTENT}
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Kind:
    """One kind of message, its two functions and its values."""

    name: str
    encode: Callable[..., bytes]
    decode: Callable[..., Any]
    values: st.SearchStrategy[Any]
    types: Any


KINDS = [
    Kind(
        "events",
        messages.encode_events,
        messages.decode_events,
        st.lists(strategies.events(), min_size=1, max_size=3).map(tuple),
        Event,
    ),
    Kind("command", messages.encode_command, messages.decode_command, strategies.worker_commands(), WorkerCommand),
    Kind("notice", messages.encode_notice, messages.decode_notice, strategies.notices(), Notice),
    Kind("control", messages.encode_control, messages.decode_control, strategies.worker_notices(), NotifyWorker),
    Kind(
        "dead_letter", messages.encode_dead_letter, messages.decode_dead_letter, strategies.dead_letters(), DeadLetter
    ),
    Kind("query", messages.encode_query, messages.decode_query, strategies.queries(), Query),
    Kind("answer", messages.encode_answer, messages.decode_answer, strategies.answers(), Answer),
]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def cancel_requested(**changes: Any) -> dict[str, Any]:
    return {"type": "CancelRequested", "id": "c1", "run_id": "r1", "at": "2026-11-22T10:00:00.123Z"} | changes


def body_of(*events: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({"v": 1, "events": list(events)} | changes).encode()


def reason_of(decode: Callable[..., Any], body: bytes) -> str | None:
    """Try to decode *body*; tell why it is refused. Any other error than the promised one ends the test."""
    try:
        decode(body)
    except UndecodableError as error:
        return error.reason
    return None


def refusal_of(body: bytes) -> UndecodableError:
    with pytest.raises(UndecodableError) as caught:
        messages.decode_events(body)
    return caught.value


@by_kind
@given(data=st.data())
def test_what_was_encoded_decodes_to_an_equal_value(kind: Kind, data: st.DataObject) -> None:
    value = data.draw(kind.values)

    assert kind.decode(kind.encode(value)) == value


@by_kind
@given(body=st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b"null")
@example(b'{"v":1}')
@example(b'{"v":1e400}')
@example(b'{"v":' + b"9" * 5000 + b"}")
@example(b"[" * 100_000)
@example(b'{"v":1,"events":' + b"[" * 100_000)
def test_any_bytes_decode_or_are_refused(kind: Kind, body: bytes) -> None:
    assert reason_of(kind.decode, body) in REASONS


@by_kind
@given(value=strategies.json_values(), minor=st.integers(0, 2))
def test_any_json_decodes_or_is_refused(kind: Kind, value: Any, minor: int) -> None:
    for content in (value, [value], {"type": "RunRequested", "at": value}):
        body = json.dumps({"v": 1, "minor": minor, kind.name: content}).encode()
        assert reason_of(kind.decode, body) in REASONS


@by_kind
@given(data=st.data())
def test_a_damaged_message_decodes_or_is_refused(kind: Kind, data: st.DataObject) -> None:
    body = bytearray(kind.encode(data.draw(kind.values)))
    where = data.draw(st.integers(0, len(body) - 1))
    body[where : where + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))

    assert reason_of(kind.decode, bytes(body)) in REASONS


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("v1/*.json")), ids=lambda path: path.stem)
def test_a_sample_of_format_1_decodes_and_says_the_same_when_written_again(path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == path.name.split(".")[0])

    value = kind.decode(path.read_bytes())

    assert json.loads(kind.encode(value)) == json.loads(path.read_bytes())


@by_kind
def test_every_type_has_a_sample(kind: Kind) -> None:
    types: Sequence[type] = get_args(kind.types) or [kind.types]

    for form in types:
        assert (SAMPLES / f"v1/{kind.name}.{form.__name__}.json").exists(), f"write a sample of {form.__name__}"


def test_a_sample_means_what_it_meant() -> None:
    (event,) = messages.decode_events((SAMPLES / "v1/events.JournalAppended.json").read_bytes())

    assert event == JournalAppended(
        id="d41d:2",
        run_id="0193535f-0000-7000-8000-000000000001",
        at=AT,
        incarnation="3f2a",
        pair=Pair(2, "9c1e"),
        worker="worker-1",
        entries=(
            JournalEntry(
                seq=3,
                epoch=2,
                at=AT,
                kind=EntryKind.TASK_FAILED,
                operation="task:send-email:00f1#1",
                attempt=3,
                failure=Failure(
                    type="smtplib.SMTPException",
                    message="mailbox full",
                    cause=Failure(type="OSError", message="552"),
                    task="send-email",
                    attempts=3,
                ),
                started_at=AT - timedelta(milliseconds=23),
                worker="worker-1",
                where="onboarding.py:42 in user_onboarding",
            ),
        ),
    )


def test_a_message_is_short_and_readable() -> None:
    body = messages.encode_events([CancelRequested(id="c1", run_id="r1", at=AT)])

    assert body == (
        b'{"v":1,"events":[{"type":"CancelRequested","id":"c1","run_id":"r1","at":"2026-11-22T10:00:00.123000Z"}]}'
    )


def test_a_payload_is_carried_as_the_text_that_it_is() -> None:
    payload = Payload('{"n":123456789012345678901234567890,"s":"\\ud800 ö \\u0000","x":1.0}')

    (event,) = messages.decode_events(
        messages.encode_events([SignalSent(id="s1", run_id="r1", at=AT, name="go", payload=payload)])
    )

    assert isinstance(event, SignalSent)
    assert event.payload == payload


def test_a_decoded_moment_is_utc_itself_to_the_millisecond() -> None:
    (event,) = messages.decode_events(body_of(cancel_requested(at="2026-11-22T10:00:00.123987Z")))

    assert event.at == AT
    assert event.at.tzinfo is UTC


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", BROKEN_JSON),
        (b'{"v":1', BROKEN_JSON),
        (b'{"v":1,"events":[],}', BROKEN_JSON),
        (b"[" * 1000, BROKEN_JSON),
        (b'"hello"', WRONG_CONTENT),
        (b"{}", UNKNOWN_VERSION),
        (body_of(cancel_requested(), v=2), UNKNOWN_VERSION),
        (body_of(cancel_requested(), v="1"), UNKNOWN_VERSION),
        (body_of(cancel_requested(), v=True), UNKNOWN_VERSION),
        (body_of(cancel_requested(), v=1.0), UNKNOWN_VERSION),
        (body_of(cancel_requested(type="RunExploded")), UNKNOWN_TYPE),
        (body_of(cancel_requested(type="RunExploded"), minor=7), UNKNOWN_TYPE),
        (body_of(), WRONG_CONTENT),
        (body_of(cancel_requested(), cancel_requested(run_id=7)), WRONG_CONTENT),
        (body_of(cancel_requested(at=1_700_000_000)), WRONG_CONTENT),
        (body_of(cancel_requested(at="2026-11-22T10:00:00")), WRONG_CONTENT),
        (body_of(cancel_requested(at="2026-11-22T10:00:00+02:00")), WRONG_CONTENT),
        (body_of(cancel_requested(force=True)), WRONG_CONTENT),
        (body_of(cancel_requested(), extra=1), WRONG_CONTENT),
        (body_of(cancel_requested(), minor=-1), WRONG_CONTENT),
        (messages.encode_query(GetRun(run_id="r1")), WRONG_CONTENT),
    ],
)
def test_a_message_that_is_none_of_ours_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    assert refusal_of(body).reason == reason


def test_a_newer_minor_version_may_say_more_than_we_know() -> None:
    assert messages.decode_events(body_of(cancel_requested(force=True), minor=1, hint="new")) == (
        CancelRequested(id="c1", run_id="r1", at=AT),
    )


def test_a_refusal_says_where_and_never_repeats_the_content() -> None:
    error = refusal_of(body_of(cancel_requested(at="my secret")))

    assert "events.0.CancelRequested.at" in error.detail
    assert "secret" not in str(error)


def test_a_refusal_of_a_message_full_of_mistakes_stays_short() -> None:
    wrong = {f"field{number}": number for number in range(1000)}

    error = refusal_of(body_of(cancel_requested(**wrong)))

    assert len(error.detail) < 1000
    assert error.detail.endswith("and 997 more")


def test_a_message_with_a_bad_event_comes_apart_into_one_for_each() -> None:
    bodies = messages.take_events_apart(body_of(cancel_requested(), cancel_requested(run_id=7), minor=3))

    assert [json.loads(body) for body in bodies] == [
        {"v": 1, "minor": 3, "events": [cancel_requested()]},
        {"v": 1, "minor": 3, "events": [cancel_requested(run_id=7)]},
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"[1,2]",
        b'{"v":1,"events":{}}',
        body_of(),
        body_of(cancel_requested(run_id=7)),
        body_of(*[cancel_requested(run_id=7)] * 1_001),
    ],
)
def test_what_is_no_message_of_some_events_stays_in_one_piece(body: bytes) -> None:
    assert messages.take_events_apart(body) == ()


def test_whoever_executes_an_order_can_say_what_came_of_it() -> None:
    longest = "x" * ID_CHARACTERS_MAX
    order = ExecuteTask(
        queue="gpu",
        run_id=longest,
        incarnation=longest,
        task_id=longest,
        task=longest,
        operation="render",
        attempt=1,
        input=Payload("null"),
        idempotency_key="key",
    )
    assert messages.decode_command(messages.encode_command(order)) == order
    finished = TaskFinished(
        id=f"finished:{longest}", run_id=longest, at=AT, incarnation=longest, task_id=longest, worker="worker"
    )
    assert messages.decode_events(messages.encode_events([finished])) == (finished,)

    for field in ("run_id", "incarnation", "task_id", "task"):
        changes: dict[str, Any] = {field: longest + "x"}
        longer = messages.encode_command(replace(order, **changes))
        with pytest.raises(UndecodableError):
            messages.decode_command(longer)


def test_a_message_over_the_limit_is_refused_on_both_sides() -> None:
    event = SignalSent(id="s1", run_id="r1", at=AT, name="go", payload=Payload('"' + "x" * 1000 + '"'))

    with pytest.raises(PayloadTooLargeError) as caught:
        messages.encode_events([event], bytes_max=1000)
    assert caught.value.bytes_max == 1000

    with pytest.raises(UndecodableError) as refused:
        messages.decode_events(messages.encode_events([event]), bytes_max=1000)
    assert refused.value.reason == TOO_LARGE


@pytest.mark.parametrize(
    "event",
    [
        CancelRequested(id="c1", run_id="\ud800", at=AT),
        CancelRequested(id=1, run_id="r1", at=AT),  # type: ignore[arg-type]
        CancelRequested(id="c1", run_id="r1", at="now"),  # type: ignore[arg-type]
        "CancelRequested",
    ],
)
def test_what_would_not_decode_is_not_written(event: Any) -> None:
    with pytest.raises(PayloadError):
        messages.encode_events([event])


def test_a_moment_that_is_not_utc_does_not_travel() -> None:
    body = messages.encode_events(
        [CancelRequested(id="c1", run_id="r1", at=AT.astimezone(timezone(timedelta(hours=2))))]
    )

    assert refusal_of(body).reason == WRONG_CONTENT


def test_a_message_without_events_is_not_written() -> None:
    with pytest.raises(ValueError, match="at least one"):
        messages.encode_events([])


def run_failed(*, causes: int) -> RunFailed:
    failure = Failure(type="E", message="the first")
    for depth in range(causes):
        failure = Failure(type="E", message=str(depth), cause=failure)
    return RunFailed(
        id="f", run_id="r", at=AT, incarnation="i", pair=Pair(1, "d"), worker="w", last_seq=0, failure=failure
    )


def test_many_long_chains_of_causes_travel() -> None:
    events = (run_failed(causes=150), run_failed(causes=150))

    assert messages.decode_events(messages.encode_events(events)) == events


@pytest.mark.parametrize("causes", [199, 240, 1000])
def test_a_chain_of_causes_that_nobody_could_read_is_not_written(causes: int) -> None:
    with pytest.raises(PayloadError):
        messages.encode_events([run_failed(causes=causes)])


def test_a_schema_is_built_once_and_not_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    def compile_one(form: Any, limits: Limits | None) -> Any:
        built.append(form)
        return compile_schema(form, limits)

    monkeypatch.setattr(envelope, "compile_schema", compile_one)
    codec: EnvelopeCodec[DeadLetter] = EnvelopeCodec(messages._DeadLetter, "dead_letter")
    letter = messages.dead_letter_of(UndecodableError("broken_json", ""), origin="q", body=b"x", at=AT)
    assert built == []

    body = codec.encode(letter, bytes_max=1_000)
    assert codec.decode(body, bytes_max=1_000) == letter
    assert codec.encode(letter, bytes_max=1_000) == body
    assert built == [messages._DeadLetter]


class TestDeadLetterOf:
    error = UndecodableError("broken_json", "expected value at line 1 column 1")

    def letter_of(self, body: bytes, *, origin: str = "aiki.events.0") -> DeadLetter:
        return messages.dead_letter_of(self.error, origin=origin, body=body, at=AT)

    def test_says_what_was_wrong_with_what_and_where(self) -> None:
        letter = self.letter_of(b"hello \xff")

        assert letter.reason == "broken_json"
        assert letter.detail == "expected value at line 1 column 1"
        assert letter.origin == "aiki.events.0"
        assert letter.body == "hello \\xff"
        assert letter.at == AT

    def test_has_the_same_id_when_the_same_message_is_parked_again(self) -> None:
        assert self.letter_of(b"x").id == self.letter_of(b"x").id
        assert self.letter_of(b"x").id != self.letter_of(b"y").id
        assert self.letter_of(b"x").id != self.letter_of(b"x", origin="other").id

    @pytest.mark.parametrize("body", [b"\x00" * 9_000_000, b"\xff" * 9_000_000, b'"' * 9_000_000, b"x" * 20_000_000])
    def test_fits_into_a_message_whatever_the_body(self, body: bytes) -> None:
        letter = self.letter_of(body)

        assert messages.decode_dead_letter(messages.encode_dead_letter(letter)) == letter
        assert f"of its {len(body):,} bytes only the first" in letter.detail

    def test_keeps_a_body_whole_that_a_message_may_have(self) -> None:
        body = b'"' + b"x" * (messages.MESSAGE_BYTES_MAX - 2) + b'"'

        assert self.letter_of(body).body.encode() == body
