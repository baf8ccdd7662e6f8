"""Whatever arrives as a message is read, or refused with the one error; quickly, and without much memory."""

import time
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given

from aiki.codec import messages
from aiki.codec.envelope import BROKEN_JSON, TOO_LARGE, UNKNOWN_TYPE, UNKNOWN_VERSION, WRONG_CONTENT
from aiki.codec.messages import MESSAGE_BYTES_MAX
from aiki.errors import PayloadTooLargeError, UndecodableError
from tests.fuzz.attempts import attempt, fuzzed
from tests.fuzz.mutations import CODECS, Codec, mutants, samples, splices

REASONS = {BROKEN_JSON, TOO_LARGE, UNKNOWN_TYPE, UNKNOWN_VERSION, WRONG_CONTENT}
AT = datetime(2026, 1, 1, tzinfo=UTC)

# Far more than any of them takes; a reader that is quadratic takes minutes.
SECONDS_MAX = 20.0
ROOM = MESSAGE_BYTES_MAX - 200

by_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def examine(codec: Codec, body: bytes) -> None:
    """Read *body*; what can be read must be written and read again, and come to the same text."""
    value, refusal = attempt(lambda: codec.decode(body), refusal=UndecodableError)
    if refusal is not None:
        assert refusal.reason in REASONS
        assert len(refusal.detail) < 2_000
        return
    text = codec.encode(value)
    assert codec.encode(codec.decode(text)) == text


@by_codec
def test_a_message_with_one_evil_value_is_read_or_refused(codec: Codec) -> None:
    for sample in samples(codec.name):
        for body in mutants(sample):
            examine(codec, body)


@by_codec
@fuzzed
@given(body=splices())
def test_a_message_that_was_cut_and_glued_is_read_or_refused(codec: Codec, body: bytes) -> None:
    examine(codec, body)


@by_codec
def test_a_message_of_another_kind_is_refused(codec: Codec) -> None:
    for other in CODECS:
        if other is not codec:
            for sample in samples(other.name):
                with pytest.raises(UndecodableError):
                    codec.decode(sample)


def cancellation(rest: bytes) -> bytes:
    return b'{"v":1,"events":[{"type":"CancelRequested",' + rest + b"}]}"


HUGE = {
    "a number of millions of digits": cancellation(b'"id":' + b"9" * ROOM),
    "an exponent of millions of digits": cancellation(b'"id":1e' + b"9" * ROOM),
    "a fraction of millions of digits": cancellation(b'"id":0.' + b"9" * ROOM),
    "a version of millions of digits": b'{"v":' + b"9" * ROOM + b"}",
    "lists in lists": b"[" * ROOM,
    "objects in objects": b'{"a":' * (ROOM // 5),
    "one key a million times": b'{"v":1,' + b'"v":1,' * (ROOM // 6) + b'"v":1}',
    "two hundred thousand unknown fields": cancellation(b",".join(b'"f%d":1' % number for number in range(200_000))),
    "millions of empty events": b'{"v":1,"events":[' + b"{}," * (ROOM // 3) + b"{}]}",
    "an id of megabytes": cancellation(b'"id":"' + b"x" * ROOM + b'"'),
    "a text of escapes": cancellation(b'"id":"' + b"\\u0000" * (ROOM // 6) + b'"'),
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_a_huge_message_is_refused_in_time(body: bytes) -> None:
    began = time.process_time()

    with pytest.raises(UndecodableError) as caught:
        messages.decode_events(body)

    assert len(caught.value.detail) < 1_000
    assert time.process_time() - began < SECONDS_MAX


def test_a_message_beyond_the_limit_is_not_even_looked_at() -> None:
    body = b"[" * (MESSAGE_BYTES_MAX + 1)

    with pytest.raises(UndecodableError) as caught:
        messages.decode_events(body)
    assert caught.value.reason == TOO_LARGE


def test_a_dead_letter_of_a_huge_message_takes_little_more_memory_than_it_keeps() -> None:
    body = b"x" * (48 * 1024 * 1024)
    tracemalloc.start()
    try:
        letter = messages.dead_letter_of(UndecodableError(TOO_LARGE, "?"), origin="aiki.events.0", body=body, at=AT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert messages.decode_dead_letter(messages.encode_dead_letter(letter)) == letter
    assert peak < 2 * len(body)


LIMITS = [
    ("id", 1024),
    ("run_id", 255),
    ("incarnation", 255),
    ("workflow", 255),
    ("client", 255),
    ("trace", 255),
    ("key", 512),
    ("input", 1024 * 1024),
]


def requested(field: str, value: str) -> bytes:
    (sample,) = (body for body in samples("events") if b'"RunRequested"' in body)
    (event,) = messages.decode_events(sample)
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return messages.encode_events([type(event)(**{**fields, field: value})])


@pytest.mark.parametrize(("field", "most"), LIMITS, ids=[field for field, _ in LIMITS])
def test_a_field_of_an_event_may_be_as_long_as_its_limit_and_no_longer(field: str, most: int) -> None:
    (event,) = messages.decode_events(requested(field, "x" * most))
    assert getattr(event, field) == "x" * most

    with pytest.raises(UndecodableError, match=f"{field}.*at most {most} characters") as caught:
        messages.decode_events(requested(field, "x" * (most + 1)))
    assert caught.value.reason == WRONG_CONTENT


def test_what_is_refused_for_its_length_is_refused_with_its_length() -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        requested("input", "x" * MESSAGE_BYTES_MAX)
    assert caught.value.bytes_max == MESSAGE_BYTES_MAX
