"""Every public error, one tree. Each says what is wrong, with the values at hand, and what to do."""

from collections.abc import Collection
from typing import Protocol

__all__ = [
    "AcceptanceTimeoutError",
    "AikiError",
    "BrokerError",
    "BrokerUnavailableError",
    "ClientClosedError",
    "ClientError",
    "CompletionTimeoutError",
    "ConfigurationError",
    "DeliveryLostError",
    "EnqueueTimeoutError",
    "IdempotencyConflictError",
    "InvalidNameError",
    "PayloadError",
    "PayloadTooLargeError",
    "PublishUncertainError",
    "QueryFailedError",
    "QueryTimeoutError",
    "RecordedFailure",
    "RunAbandonedError",
    "RunCancelledError",
    "RunDeadLetteredError",
    "RunEndedError",
    "RunFailedError",
    "RunNotFoundError",
    "StoreError",
    "StoreUnavailableError",
    "UndecodableError",
    "UnroutableError",
]


class AikiError(Exception):
    """The root of all errors of Aiki: a message, and a hint at what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class ConfigurationError(AikiError):
    """A setting is missing, wrong, or does not fit what is stored."""


class InvalidNameError(AikiError):
    """A name of a workflow, a version, a task or a queue cannot be one."""

    def __init__(self, what: str, name: str, *, reason: str) -> None:
        super().__init__(
            f"{name!r} cannot be the name of a {what}: {reason}",
            hint="use letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100 characters",
        )
        self.name = name


class PayloadError(AikiError):
    """A value cannot be written as JSON."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"the {what} cannot be written as JSON: {reason}",
            hint="pass values that pydantic can serialise, and no NaN or infinity",
        )


class PayloadTooLargeError(PayloadError):
    """A value is longer than what the broker and the store should carry."""

    def __init__(self, what: str, *, size: int, bytes_max: int) -> None:
        AikiError.__init__(
            self,
            f"the {what} takes {size:,} bytes as JSON, {bytes_max:,} are allowed",
            hint="store large data elsewhere and pass a reference to it",
        )
        self.size = size
        self.bytes_max = bytes_max


class BrokerError(AikiError):
    """Something went wrong with the broker."""


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached, refuses us, or does not answer in time. Nothing was sent."""


class PublishUncertainError(BrokerError):
    """The connection was lost, or time ran out, before the broker confirmed: what was sent may have arrived."""


class UnroutableError(BrokerError):
    """The broker has no queue for a message and returned it."""

    def __init__(self, exchange: str, routing_key: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"nothing is bound to exchange {exchange!r} for routing key {routing_key!r}",
            hint=hint or "run `aiki topology check`",
        )
        self.exchange = exchange
        self.routing_key = routing_key


class DeliveryLostError(BrokerError):
    """The subscription is gone; what it delivered and was not acknowledged is delivered to somebody again."""


class QueryTimeoutError(BrokerError):
    """No orchestrator answered in time."""

    def __init__(self, *, timeout: float) -> None:
        super().__init__(
            f"no orchestrator answered within {timeout:g} s",
            hint="is one running? start it with `aiki orchestrator`, or look with `aiki doctor`",
        )


class UndecodableError(AikiError):
    """A message or a document cannot be read: broken, too large, or of a version or type that we do not know."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(
            f"it cannot be decoded ({reason}): {detail}",
            hint="if a newer Aiki wrote it, update this process first",
        )
        self.reason = reason
        self.detail = detail


class StoreError(AikiError):
    """Something went wrong with the store."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached or refuses to write; nothing is known to have been kept. Trying again is safe."""


class RecordedFailure(Protocol):
    """What is known of an exception that was recorded elsewhere: ``aiki.engine.journal.Failure`` is one."""

    @property
    def type(self) -> str:
        """The name of the exception's class."""
        ...

    @property
    def message(self) -> str:
        """What it said."""
        ...

    @property
    def traceback(self) -> str | None:
        """Where it came from."""
        ...

    @property
    def task(self) -> str | None:
        """The task that failed, where it was one."""
        ...

    @property
    def attempts(self) -> int | None:
        """How often that task was tried."""
        ...


class ClientError(AikiError):
    """What an application asked for did not come about."""


class ClientClosedError(ClientError):
    """The client, or what uses it, is not open."""

    def __init__(self, what: str = "the client") -> None:
        super().__init__(f"{what} is not open", hint="use it inside `async with`")


class EnqueueTimeoutError(ClientError):
    """Time ran out before a run, or something said to a run, was safe. ``certain`` tells whether nothing was sent."""

    def __init__(
        self, what: str, *, timeout: float, certain: bool, run_id: str | None = None, detail: str = ""
    ) -> None:
        outcome = "nothing was sent" if certain else "it may have arrived all the same"
        hint = (
            "is the broker up? look with `aiki doctor`" if certain else "with an idempotency key it is safe to repeat"
        )
        reason = f": {detail}" if detail else ""
        super().__init__(f"{what} was not confirmed within {timeout:g} s; {outcome}{reason}", hint=hint)
        self.run_id = run_id
        self.certain = certain
        self.timeout = timeout


class AcceptanceTimeoutError(EnqueueTimeoutError):
    """A run is safe in the broker, and no orchestrator said in time that it is stored."""

    def __init__(self, run_id: str, *, timeout: float) -> None:
        AikiError.__init__(
            self,
            f"run {run_id} is safe in the broker, but no orchestrator has stored it within {timeout:g} s",
            hint="is one running? the run starts once there is; do not enqueue it again without an idempotency key",
        )
        self.run_id = run_id
        self.certain = False
        self.timeout = timeout


class IdempotencyConflictError(ClientError):
    """An idempotency key stands for a run with another input already."""

    def __init__(self, workflow: str, key: str, *, run_id: str, existing_hash: str, input_hash: str) -> None:
        super().__init__(
            f"idempotency key {key!r} of workflow {workflow!r} stands for run {run_id} with input hash "
            f"{existing_hash}, this input has {input_hash}",
            hint="use another key, or on_conflict='use_existing' to get the run that is there",
        )
        self.workflow = workflow
        self.key = key
        self.run_id = run_id
        self.existing_hash = existing_hash
        self.input_hash = input_hash


class RunNotFoundError(ClientError):
    """There is no run with that id, or none any more."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"there is no run {run_id!r}",
            hint="finished runs are removed when their retention is over; `aiki runs list` shows those that are there",
        )
        self.run_id = run_id


class QueryFailedError(ClientError):
    """An orchestrator answered that it could not do what it was asked."""

    def __init__(self, query: str, reason: str) -> None:
        super().__init__(f"the orchestrator could not answer {query}: {reason}", hint="its log says more")
        self.reason = reason


class CompletionTimeoutError(ClientError, TimeoutError):
    """A run was not over in time. It goes on all the same."""

    def __init__(self, run_id: str, *, timeout: float) -> None:
        super().__init__(
            f"run {run_id} was not over after {timeout:g} s; it goes on all the same",
            hint=f"look at it with `aiki runs show {run_id}`",
        )
        self.run_id = run_id
        self.timeout = timeout


class RunEndedError(ClientError):
    """A run ended without a result."""

    def __init__(self, run_id: str, workflow: str, how: str, failure: RecordedFailure | None) -> None:
        because = "" if failure is None else f": {failure.type}: {failure.message}"
        super().__init__(
            f"run {run_id} of {workflow!r} {how}{because}", hint=f"its timeline: `aiki runs show {run_id}`"
        )
        self.run_id = run_id
        self.workflow = workflow
        self.failure = failure


class RunFailedError(RunEndedError):
    """A run failed; ``failure`` has what was recorded."""

    def __init__(self, run_id: str, workflow: str, failure: RecordedFailure | None) -> None:
        super().__init__(run_id, workflow, "failed", failure)


class RunCancelledError(RunEndedError):
    """A run was cancelled."""

    def __init__(self, run_id: str, workflow: str, failure: RecordedFailure | None = None) -> None:
        super().__init__(run_id, workflow, "was cancelled", failure)


class RunDeadLetteredError(RunEndedError):
    """A run lost its workers again and again and is parked with the dead letters."""

    def __init__(self, run_id: str, workflow: str, failure: RecordedFailure | None = None) -> None:
        super().__init__(run_id, workflow, "is parked with the dead letters", failure)


class RunAbandonedError(AikiError):
    """A worker gave a run up, which is not (or may not be) its own any more: it records nothing more of it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"this worker gave up run {run_id}: another one may hold it now")
        self.run_id = run_id


def listed(names: Collection[str]) -> str:
    """Write *names* for a message: sorted, quoted, or 'none'."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"
