"""Facts: what a run has learnt and not recorded yet."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aiki.engine.journal import EntryKind, Failure, InboxItem, JournalEntry
from aiki.engine.payload import Payload
from aiki.worker.attempts import Attempted
from aiki.worker.failures import error_like, failure_of
from aiki.worker.operations import ChildOperation, Operation, TaskOperation

__all__ = ["Fact", "attempt_ended", "item_arrived"]


@dataclass(slots=True, kw_only=True, eq=False)
class Fact:
    """Something that was learnt and is not recorded yet."""

    kind: EntryKind
    at: datetime
    operation: Operation | None = None
    label: str | None = None
    """What the entry says of its operation, where there is no ``operation``."""
    attempt: int | None = None
    payload: Payload | None = None
    failure: Failure | None = None
    item: InboxItem | None = None
    """What arrived and is consumed by this."""
    source: str | None = None
    name: str | None = None
    delay: timedelta | None = None
    started_at: datetime | None = None

    @property
    def is_void(self) -> bool:
        """Whether nobody wants to know any more."""
        return self.operation is not None and self.operation.is_over

    @property
    def must_be_first(self) -> bool:
        """Whether nothing may be resolved between its publishing and it.

        A signal must not be lost to somebody who stopped waiting for it because of an earlier entry of the batch.
        """
        return self.kind is EntryKind.SIGNAL_RECEIVED

    def entry(self, seq: int, epoch: int, at: datetime, worker: str) -> JournalEntry:
        """Write it down."""
        return JournalEntry(
            seq=seq,
            epoch=epoch,
            at=at,
            kind=self.kind,
            operation=self.label if self.operation is None else self.operation.id,
            attempt=self.attempt,
            payload=self.payload,
            failure=self.failure,
            source=self.source if self.item is None else self.item.id,
            name=self.name,
            due_at=None if self.delay is None else at + self.delay,
            started_at=self.started_at,
            worker=worker if self.item is None else self.item.worker,
            where=None if self.operation is None else self.operation.caller.where,
        )


def attempt_ended(operation: TaskOperation, attempted: Attempted, failure: Failure | None = None) -> Fact:
    """Tell what an attempt means for its task: done, to be tried again, or failed for good."""
    number = operation.failed_attempts + 1
    fact = Fact(
        kind=EntryKind.TASK_COMPLETED,
        at=attempted.ended_at,
        operation=operation,
        attempt=number,
        payload=attempted.result,
        started_at=attempted.started_at,
    )
    if attempted.error is None:
        return fact
    delay = operation.task.options.retry.next_delay(number, attempted.error, random.random())
    return replace(
        fact,
        kind=EntryKind.TASK_FAILED if delay is None else EntryKind.ATTEMPT_FAILED,
        failure=replace(failure or failure_of(attempted.error), task=operation.task.name, attempts=number),
        delay=delay,
    )


def item_arrived(operation: Operation, item: InboxItem, at: datetime) -> Fact:
    """Tell what an item means for the operation that waited for it."""
    match operation:
        case TaskOperation():
            error = None if item.failure is None else error_like(item.failure)
            attempted = Attempted(started_at=at, ended_at=at, result=item.payload, error=error)
            return replace(attempt_ended(operation, attempted, item.failure), item=item, started_at=None)
        case ChildOperation() if item.failure is not None or item.cancelled:
            failure = item.failure or Failure(type="asyncio.CancelledError", message="the child run was cancelled")
            return Fact(kind=EntryKind.CHILD_FAILED, at=at, operation=operation, failure=failure, item=item)
        case ChildOperation():
            kind, name = EntryKind.CHILD_COMPLETED, None
        case _:
            kind, name = EntryKind.SIGNAL_RECEIVED, item.name
    return Fact(kind=kind, at=at, operation=operation, payload=item.payload, name=name, item=item)
