"""The limit is one only as long as its messages and documents are those of Aiki."""

from collections.abc import Iterable

import bson
import pytest

from bench.counting import an_engine
from bench.raw.shape import (
    COMMAND_BYTES,
    COMPLETED,
    EVENT_BYTES,
    NOTICE_BYTES,
    RECORDED,
    REQUESTED,
    STARTED,
    Said,
    entry_document,
    heard,
    run_document,
    said,
)
from bench.workflows import three_steps


async def test_the_messages_and_documents_of_the_limit_are_as_large_as_those_of_a_run() -> None:
    async with an_engine() as engine:
        before = len(engine.messages)
        with engine.counted() as counts:
            await (await three_steps.enqueue(engine.client, 0)).wait_for_completion(timeout=20)
    bodies = {
        kind: sum(len(message.body) for message in engine.messages[before:] if message.exchange == exchange)
        for kind, exchange in (("events", "aiki.events"), ("commands", "aiki.commands"), ("notices", "aiki.notices"))
    }

    events = sum(EVENT_BYTES[kind] for kind in (REQUESTED, STARTED, RECORDED, RECORDED, RECORDED, COMPLETED))
    assert bodies["events"] == pytest.approx(events, rel=0.05)
    assert bodies["commands"] == pytest.approx(COMMAND_BYTES, rel=0.05)
    assert bodies["notices"] == pytest.approx(NOTICE_BYTES, rel=0.05)
    assert counts["run bytes"] == pytest.approx(_bytes(run_document(1, revision) for revision in (1, 2, 3)), rel=0.05)
    assert counts["entry bytes"] == pytest.approx(_bytes(entry_document(1, seq) for seq in (1, 2, 3)), rel=0.05)


def test_what_the_limit_says_is_heard() -> None:
    events = [Said(REQUESTED, 7, 3), Said(RECORDED, 8, -100, 99)]

    body = b"".join(said(event) for event in events)

    assert heard(body) == events


def _bytes(documents: Iterable[dict[str, object]]) -> int:
    return sum(len(bson.encode(document)) for document in documents)
