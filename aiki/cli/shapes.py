"""What ``--json`` writes: runs, journals and dead letters in a shape that stays as it is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiki.cli.timeline import Row, Timeline
from aiki.engine.journal import Failure, JournalEntry, Wait
from aiki.engine.payload import Payload, load_payload
from aiki.engine.queries import StoredDeadLetter
from aiki.engine.state import RunState
from aiki.errors import RecordMismatchError

__all__ = ["entry_shape", "failure_shape", "letter_shape", "run_shape", "timeline_shape"]


def run_shape(run: RunState) -> dict[str, Any]:
    """Shape a run. What a field does not say (no result, no failure) is null, never missing."""
    return {
        "id": run.run_id,
        "workflow": run.workflow,
        "version": run.version,
        "status": run.status.value,
        "created_at": _moment(run.created_at),
        "started_at": _moment(run.started_at),
        "finished_at": _moment(run.finished_at),
        "expires_at": _moment(run.expires_at),
        "wake_at": _moment(run.wake_at),
        "timeout_at": _moment(run.timeout_at),
        "input": _value(run.input),
        "input_hash": run.input_hash,
        "result": _value(run.result),
        "failure": failure_shape(run.failure),
        "note": _value(run.note),
        "waits": [_wait(wait) for wait in run.waits],
        "worker": run.holder,
        "epoch": run.pair.epoch,
        "recoveries": run.recoveries,
        "recoveries_max": run.recoveries_max,
        "cancel_requested": run.cancel_requested is not None,
        "pause_requested": run.pause_requested,
        "key": run.key,
        "tags": list(run.tags),
        "priority": run.priority,
        "parent": run.parent.run_id if run.parent else None,
    }


def entry_shape(entry: JournalEntry) -> dict[str, Any]:
    """Shape an entry of a journal; only what it says is there."""
    shape: dict[str, Any] = {
        "seq": entry.seq,
        "at": _moment(entry.at),
        "kind": entry.kind.value,
        "operation": entry.operation,
        "attempt": entry.attempt,
        "payload": _value(entry.payload),
        "failure": failure_shape(entry.failure),
        "source": entry.source,
        "name": entry.name,
        "due_at": _moment(entry.due_at),
        "started_at": _moment(entry.started_at),
        "worker": entry.worker,
        "where": entry.where,
    }
    return {name: value for name, value in shape.items() if value is not None}


def failure_shape(failure: Failure | None) -> dict[str, Any] | None:
    """Shape a failure and its causes."""
    if failure is None:
        return None
    return {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "task": failure.task,
        "attempts": failure.attempts,
        "cause": failure_shape(failure.cause),
    }


def letter_shape(stored: StoredDeadLetter) -> dict[str, Any]:
    """Shape a dead letter."""
    letter = stored.letter
    return {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "at": _moment(letter.at),
        "origin": letter.origin,
        "run": letter.run_id,
        "workflow": letter.workflow,
        "times": stored.times,
        "state": stored.state,
        "handled_at": _moment(stored.handled_at),
        "body": letter.body,
    }


def timeline_shape(timeline: Timeline) -> list[dict[str, Any]]:
    """Shape a timeline: one object a step."""
    return [_row(row) for row in timeline.rows]


def _row(row: Row) -> dict[str, Any]:
    return {
        "operation": row.operation,
        "name": row.name,
        "outcome": row.outcome.value,
        "attempts": row.attempts,
        "seconds": round(row.span.total_seconds(), 3),
        "where": row.where,
        "segments": [
            {
                "start": _moment(segment.start),
                "end": _moment(segment.end),
                "outcome": segment.outcome.value,
                "attempt": segment.attempt,
                "worker": segment.worker,
                "failure": failure_shape(segment.failure),
            }
            for segment in row.segments
        ],
    }


def _wait(wait: Wait) -> Mapping[str, Any]:
    return {"kind": wait.kind.value, "operation": wait.operation, "name": wait.name, "due_at": _moment(wait.due_at)}


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(payload: Payload | None) -> Any:
    try:
        return None if payload is None else load_payload(payload)
    except RecordMismatchError:  # Somebody else than our client wrote it: then the text has to do.
        return payload
