"""What the messages and documents of a run look like: Aiki's sizes and fields, without a meaning.

A test holds them against what Aiki sends and stores.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiki.sdk.run_ids import RUNS_TOGETHER

__all__ = [
    "CLIENT",
    "COMPLETED",
    "PARTITIONS",
    "QUEUE",
    "RECORDED",
    "REQUESTED",
    "STARTED",
    "Said",
    "command_body",
    "entry_document",
    "heard",
    "notice_body",
    "partition_of",
    "run_document",
    "run_id",
    "said",
]

PARTITIONS = 8
QUEUE = "three-steps@1.0.0"
CLIENT = "client-fb0baa3579a3"

REQUESTED, STARTED, RECORDED, COMPLETED = b"Q", b"S", b"J", b"C"

# The size of each event in a message of Aiki's, in bytes.
EVENT_BYTES = {REQUESTED: 351, STARTED: 285, RECORDED: 561, COMPLETED: 310}
# A result that is recorded together with another one is an entry more in the same event.
FURTHER_ENTRY_BYTES = 290
COMMAND_BYTES = 370
NOTICE_BYTES = 266

_WORKER = "worker-ecf7843239b4"
_HEX = "e9f30a48868449b98ff3ec8fc5909f39"


class Said(NamedTuple):
    """An event: what happened to which run. *steps* are those of the run; below zero, all of them at once."""

    kind: bytes
    number: int
    steps: int
    seq: int = 0


def said(event: Said) -> bytes:
    """Write *event* as a line of the size that it has in Aiki."""
    head = b"%s %d %d %d " % event
    size = FURTHER_ENTRY_BYTES if event.steps < 0 and event.seq > 1 else EVENT_BYTES[event.kind]
    return head.ljust(size - 1, b".") + b"\n"


def heard(body: bytes) -> list[Said]:
    """Read the lines of a message."""
    events = []
    for line in body.split(b"\n")[:-1]:
        kind, number, steps, seq, _ = line.split(b" ", 4)
        events.append(Said(kind, int(number), int(steps), int(seq)))
    return events


def command_body(number: int, steps: int) -> bytes:
    """Write the order to execute a run."""
    return (b"%d %d " % (number, steps)).ljust(COMMAND_BYTES, b".")


def notice_body(number: int) -> bytes:
    """Write the outcome of a run."""
    return (b"%d " % number).ljust(NOTICE_BYTES, b".")


def partition_of(number: int) -> int:
    """Tell where a run belongs: as many in a row belong together as a client of Aiki's keeps together."""
    return number // RUNS_TOGETHER % PARTITIONS


def run_id(number: int) -> str:
    """Make an id of the length of a UUID."""
    return f"{number:036}"


def run_document(number: int, revision: int) -> dict[str, Any]:
    """Make the document of a run that was requested (1), has started (2) or is completed (3)."""
    now = datetime.now(UTC)
    document: dict[str, Any] = {
        "inc": _HEX,
        "rev": revision,
        "workflow": "three-steps",
        "version": "1.0.0",
        "queue": QUEUE,
        "status": ("queued", "running", "completed")[revision - 1],
        "created": now,
        "requested_by": _HEX,
        "input": '{"start":0}',
        "input_hash": _HEX[:16],
        "pair": {"epoch": 1, "dispatch": _HEX[:24]},
        "cause": _HEX,
        "dispatched": now,
        "recoveries_max": 3,
        "client": CLIENT,
        "v": 1,
        "_id": run_id(number),
        "slot": number,
    }
    if revision < 3:
        document["open"] = True
    if revision > 1:
        document |= {"holder": _WORKER, "started": now}
    if revision == 3:
        document |= {"result": "3", "finished": now, "expires": now.replace(year=now.year + 1, day=1)}
    return document


def entry_document(number: int, seq: int) -> dict[str, Any]:
    """Make the document of a journal entry."""
    now = datetime.now(UTC)
    return {
        "seq": seq,
        "epoch": 1,
        "at": now,
        "kind": "task_completed",
        "op": f"task:add:{_HEX[:16]}#1",
        "attempt": 1,
        "payload": str(seq),
        "started": now,
        "worker": _WORKER,
        "where": "workflows.py:27 in three_steps",
        "v": 1,
        "_id": f"{run_id(number)}:{_HEX}:{seq:08}",
        "run": run_id(number),
        "whole": 0,
    }
