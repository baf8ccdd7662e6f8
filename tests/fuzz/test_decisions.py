"""Whatever an event says that could be read: deciding does not fail, and what follows can be stored and sent."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_args, get_type_hints

import bson
from hypothesis import given
from hypothesis import strategies as st

from aiki.adapters.broker.rabbitmq.frames import message_frames
from aiki.adapters.broker.rabbitmq.outgoing import command_message
from aiki.adapters.broker.rabbitmq.repairs import undeliverable
from aiki.codec.documents import DOCUMENT_BYTES_MAX, entry_to_document, run_to_document
from aiki.codec.messages import decode_events, encode_events
from aiki.engine.events import Event, RunRequested, TaskScheduled
from aiki.engine.payload import Payload
from aiki.engine.state import RunState
from aiki.errors import PayloadError, PayloadTooLargeError, UndecodableError
from aiki.orchestrator.fold import fold
from aiki.testing import builders, strategies
from aiki.testing.builders import T0
from tests.fuzz.attempts import attempt, fuzzed

FRAME_MAX = 131_072
KINDS = get_args(Event)
EXTREMES: dict[type, list[Any]] = {
    int: [0, 1, -1, 255, 256, 2**63, -(2**63) - 1, 10**30],
    float: [0.0, -1.0, 1e9, 1e300, -1e300, float("inf"), float("nan")],
    str: ["", "x", "greet@1.0.0", "a.b.c", "*.#", "\0", "é" * 127, "x" * 255, "x" * 300, "x" * 70_000],
    datetime: [datetime.min.replace(tzinfo=UTC), T0, datetime.max.replace(microsecond=999_000, tzinfo=UTC)],
}
PAYLOADS = [Payload(text) for text in ("null", "{}", "not json", "[" * 5_000, "9" * 5_000, "", "\0" * 100)]


@cache
def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """What the type of a field allows, and of that mostly what nobody expects."""
    plain = strategies.values_of(hint)
    extreme = [value for kind in (hint, *get_args(hint)) for value in EXTREMES.get(kind, ())]
    extreme += PAYLOADS if Payload in (hint, *get_args(hint)) else []
    return st.sampled_from(extreme) | plain if extreme else plain


@st.composite
def hostile(draw: st.DrawFn, kind: Any, run: RunState | None) -> Any:
    """Draw an event of *kind* that says anything; for *run* it says at times what its holder would."""
    hints = get_type_hints(kind)
    event = kind(**{field.name: draw(values_of(hints[field.name])) for field in fields(kind) if field.name != "type"})
    known: dict[str, Any] = {"run_id": "run" if run is None else run.run_id}
    if run is not None and draw(st.booleans()):
        known |= {"incarnation": run.incarnation, "pair": run.pair, "worker": run.holder or "w", "last_seq": 0}
    return replace(event, **{name: value for name, value in known.items() if hasattr(event, name)})


def read_back(event: Event) -> Event | None:
    """Send *event* through the codec, as everything comes; ``None`` if it is not let in."""
    body, _ = attempt(lambda: encode_events([event]), refusal=PayloadError)
    found, _ = attempt(lambda: decode_events(body or b""), refusal=UndecodableError)
    return None if found is None else found[0]


def follow(run: RunState | None, event: Event) -> RunState | None:
    """Decide about *event*, and do all that follows from it as far as it can be done without servers."""
    folded = fold(event.run_id, run, [event], now=T0 + timedelta(days=1), retention=60.0)
    if isinstance(event, RunRequested | TaskScheduled) and folded.failed:
        return run  # It names a queue that cannot exist: parked.
    assert not folded.failed, folded.failed

    documents = [] if folded.run is None else [run_to_document(folded.run)]
    documents += [entry_to_document(entry) for entry in (folded.change.journal if folded.change else ())]
    assert all(len(bson.encode(document)) < DOCUMENT_BYTES_MAX for document in documents)
    for command in folded.commands:
        message, _ = attempt(
            lambda command=command: undeliverable(command, T0) or command_message(command, 8),  # type: ignore[misc]
            refusal=PayloadTooLargeError,
        )
        if message is not None:
            pieces = message_frames(1, message, message_id="m", seconds=1, frame_max=FRAME_MAX)
            assert all(len(piece) < FRAME_MAX for piece in pieces)
    return folded.run


LIVES: list[Callable[[RunState], list[Event]]] = [
    lambda _run: [],
    lambda run: [builders.started(run)],
    lambda run: [builders.started(run), builders.suspended(builders.after(run, builders.started(run)))],
    lambda run: [builders.started(run), builders.completed(builders.after(run, builders.started(run)))],
]


@fuzzed
@given(data=st.data())
def test_no_event_is_too_strange_to_be_decided(data: st.DataObject) -> None:
    request = data.draw(hostile(RunRequested, None))
    asked = read_back(replace(request, queue="greet@1.0.0"))
    run = follow(None, asked) if asked is not None else builders.a_run()
    if run is not None and run.status.value == "queued":
        for event in data.draw(st.sampled_from(LIVES))(run):
            run = follow(run, event)
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)):
        said = read_back(data.draw(hostile(kind, run)))
        if said is not None:
            run = follow(run, said)


def test_a_run_that_is_to_be_kept_for_ever_ends_and_is_kept_for_a_century() -> None:
    for retention in (1e300, -1e300, 1e15):
        asked = replace(builders.requested(), retention=retention)
        run = builders.after(None, asked)

        done = builders.after(
            run, builders.started(run), builders.completed(builders.after(run, builders.started(run)))
        )

        assert done.expires_at is not None
        assert T0 <= done.expires_at <= T0 + timedelta(days=36_501)
