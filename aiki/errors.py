"""Every public error, one tree. Each says what is wrong, with the values at hand, and what to do."""

from collections.abc import Collection, Sequence
from typing import Protocol

__all__ = [
    "AcceptanceTimeoutError",
    "AikiError",
    "BatchNotEnqueuedError",
    "BrokerError",
    "BrokerUnavailableError",
    "ChildFailedError",
    "ClientClosedError",
    "ClientError",
    "CompletionTimeoutError",
    "ConfigurationError",
    "DeadLetterNotFoundError",
    "DeliveryLostError",
    "DirectCallError",
    "DuplicateNameError",
    "EnqueueTimeoutError",
    "IdempotencyConflictError",
    "InvalidArgumentsError",
    "InvalidNameError",
    "InvalidOptionError",
    "NonDeterminismError",
    "PayloadError",
    "PayloadTooLargeError",
    "PublishUncertainError",
    "QueryFailedError",
    "QueryTimeoutError",
    "RecordMismatchError",
    "RecordedFailure",
    "ResultNotSerialisableError",
    "RunAbandonedError",
    "RunCancelledError",
    "RunDeadLetteredError",
    "RunEndedError",
    "RunFailedError",
    "RunNotFoundError",
    "RunNotRetryableError",
    "RunTimeoutError",
    "RunTooLargeError",
    "StoreError",
    "StoreUnavailableError",
    "TaskFailedError",
    "TaskHeartbeatTimeoutError",
    "TaskTimeoutError",
    "UndecodableError",
    "UnknownTaskError",
    "UnknownWorkflowError",
    "UnroutableError",
    "WorkflowIOError",
    "WorkflowStuckError",
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
    """A name of a workflow, a version, a task, a queue or a signal cannot be one."""

    def __init__(self, what: str, name: str, *, reason: str) -> None:
        super().__init__(
            f"{shortened(name)} cannot be the name of a {what}: {reason}",
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


class RunTooLargeError(StoreError):
    """What is to be remembered of a run fits no document of the store. Nothing of the commit was kept."""

    def __init__(self, run_id: str, *, size: int, bytes_max: int) -> None:
        super().__init__(
            f"run {run_id} would take {size:,} bytes in the store, {bytes_max:,} are allowed",
            hint="did much arrive that it never took, signals or results? send references instead of the data itself",
        )
        self.run_id = run_id
        self.size = size
        self.bytes_max = bytes_max


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


class BatchNotEnqueuedError(EnqueueTimeoutError):
    """Some of many runs were not confirmed: ``handles`` are those of the others, ``errors`` say why and which."""

    def __init__(self, handles: Sequence[object], errors: Sequence[AikiError]) -> None:
        AikiError.__init__(
            self,
            f"{len(errors)} of {len(errors) + len(handles)} runs were not confirmed; the first: {errors[0].message}",
            hint=errors[0].hint,
        )
        self.handles = handles
        self.errors = errors
        self.run_id = None
        self.certain = all(getattr(error, "certain", True) for error in errors)


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


class DeadLetterNotFoundError(ClientError):
    """There is no dead letter with that id."""

    def __init__(self, letter_id: str) -> None:
        super().__init__(f"there is no dead letter {letter_id!r}", hint="list them with `aiki dead-letters list`")
        self.letter_id = letter_id


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
    """A run ended without a result; ``failure`` has what was recorded."""

    how = "ended without a result"

    def __init__(self, run_id: str, workflow: str, failure: RecordedFailure | None = None) -> None:
        because = "" if failure is None else f": {failure.type}: {failure.message}"
        super().__init__(
            f"run {run_id} of {workflow!r} {self.how}{because}", hint=f"its timeline: `aiki runs show {run_id}`"
        )
        self.run_id = run_id
        self.workflow = workflow
        self.failure = failure


class RunFailedError(RunEndedError):
    """A run failed."""

    how = "failed"


class RunTimeoutError(RunFailedError):
    """A run was not over when its time (the option ``timeout`` of its workflow) was, and was stopped."""

    how = "ran out of time"


class RunCancelledError(RunEndedError):
    """A run was cancelled."""

    how = "was cancelled"


class RunDeadLetteredError(RunEndedError):
    """A run lost its workers again and again and is parked with the dead letters."""

    how = "is parked with the dead letters"


class RunNotRetryableError(ClientError):
    """Only a run that failed, was cancelled or dead-lettered can be tried again."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(
            f"run {run_id} is {status}: there is nothing to try again",
            hint="only runs that failed, were cancelled or dead-lettered can be retried",
        )
        self.run_id = run_id
        self.status = status


class RunAbandonedError(AikiError):
    """A worker gave a run up, which is not (or may not be) its own any more: it records nothing more of it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"this worker gave up run {run_id}: another one may hold it now")
        self.run_id = run_id


class InvalidOptionError(AikiError, ValueError):
    """An option of a task, a workflow, a run or a question makes no sense. Refused where it is written."""

    def __init__(self, option: str, value: object, *, expected: str) -> None:
        super().__init__(f"{option} must be {expected}, not {shortened(value)}")
        self.option = option
        self.value = value


class InvalidArgumentsError(AikiError, TypeError):
    """Arguments do not fit the signature of a task or a workflow. Nothing was sent."""

    def __init__(self, what: str, problems: Sequence[tuple[str, str, object]]) -> None:
        said = "; ".join(f"{field}: {expected}, got {shortened(got)}" for field, expected, got in problems)
        super().__init__(f"the arguments do not fit {what}: {said}", hint="compare the call with its signature")
        self.problems = tuple(problems)
        """For each problem the field, what was expected, and what was there."""

    @property
    def field(self) -> str:
        """The first field that does not fit."""
        return self.problems[0][0]


class ResultNotSerialisableError(PayloadError, TypeError):
    """What a task or a workflow returned does not fit its annotation, or cannot be written as JSON."""

    def __init__(self, what: str, reason: str) -> None:
        AikiError.__init__(
            self,
            f"the result of {what} cannot be recorded: {reason}",
            hint="return what the annotation says, built of values that pydantic can serialise",
        )


class RecordMismatchError(AikiError):
    """What was recorded, or sent, cannot be read as the type that the code asks for now."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be read as the type that the code asks for: {reason}",
            hint="keep types readable for what is recorded already, or give the workflow a new version",
        )


class DuplicateNameError(AikiError):
    """Two different workflows, or two different tasks, have one name."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there are two different {what}s named {name!r}", hint="give one of them another name=")
        self.name = name


class UnknownWorkflowError(AikiError):
    """A run names a workflow, or a version of it, that is not served here."""

    def __init__(self, name: str, version: str | None = None, *, served: Collection[str]) -> None:
        wanted = name if version is None else f"{name}@{version}"
        super().__init__(
            f"there is no workflow {wanted!r} here",
            hint=f"there is {listed(served)}; add the workflow to Worker(workflows=[...])",
        )
        self.name = name
        self.version = version


class UnknownTaskError(AikiError):
    """A command names a task that is not served here."""

    def __init__(self, name: str, *, served: Collection[str]) -> None:
        super().__init__(
            f"there is no task {name!r} here", hint=f"there is {listed(served)}; add the task to Worker(tasks=[...])"
        )
        self.name = name


class DirectCallError(AikiError):
    """A task, or a workflow, was called inside a workflow as if it were a plain function."""

    def __init__(self, what: str, name: str, function: str) -> None:
        super().__init__(
            f"{what} {name!r} was called directly inside a workflow, where nothing of it would be recorded",
            hint=f"write `await {function}.run(run, ...)`",
        )
        self.name = name


class WorkflowIOError(AikiError):
    """A workflow tried to do something that replay cannot repeat: I/O, a thread, a process."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"a workflow cannot use {what}: it runs again from its record, and must only decide",
            hint="move it into a task, and call that with `.run(run, ...)`",
        )
        self.what = what


class WorkflowStuckError(AikiError):
    """A workflow waits for something that can never happen, or never stops computing."""


class NonDeterminismError(AikiError):
    """The code of a workflow no longer fits what a run has recorded. Nothing new was executed."""

    def __init__(self, *, recorded: Sequence[str], asked: Sequence[str]) -> None:
        super().__init__(
            "the workflow no longer fits the record of this run\n"
            + _indented("recorded, and not asked for:", recorded)
            + "\n"
            + _indented("asked for, and not recorded:", asked),
            hint="undo the change, or deploy it as a new version of the workflow and let this one finish its runs",
        )
        self.recorded = tuple(recorded)
        self.asked = tuple(asked)


class TaskFailedError(AikiError):
    """A task failed for good. Raised in the workflow that awaits it; ``failure`` has what was recorded."""

    def __init__(self, task: str, *, attempts: int, failure: RecordedFailure, operation: str = "") -> None:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(f"task {task!r} failed after {times}: {failure.type}: {failure.message}")
        self.task = task
        self.attempts = attempts
        self.failure = failure
        self.operation = operation

    def was(self, error: type[BaseException]) -> bool:
        """Whether the last attempt ended with an exception of exactly that class."""
        return self.failure.type == type_name(error)


class TaskTimeoutError(AikiError, TimeoutError):
    """An attempt of a task took longer than its timeout."""

    def __init__(self, task: str, *, timeout: float) -> None:
        super().__init__(
            f"task {task!r} was not done within {timeout:g} s", hint="raise its timeout=, or make it faster"
        )
        self.task = task
        self.timeout = timeout


class TaskHeartbeatTimeoutError(TaskTimeoutError):
    """An attempt of a task did not call ``heartbeat()`` for too long."""

    def __init__(self, task: str, *, timeout: float) -> None:
        AikiError.__init__(
            self,
            f"task {task!r} gave no heartbeat for {timeout:g} s",
            hint="call `ctx.heartbeat()` more often, or raise its heartbeat_timeout=",
        )
        self.task = task
        self.timeout = timeout


class ChildFailedError(AikiError):
    """A child run failed or was cancelled. Raised in the workflow that awaits it."""

    def __init__(self, workflow: str, run_id: str, *, failure: RecordedFailure, operation: str = "") -> None:
        super().__init__(f"child run {run_id} of {workflow!r} failed: {failure.type}: {failure.message}")
        self.workflow = workflow
        self.run_id = run_id
        self.failure = failure
        self.operation = operation


def listed(names: Collection[str]) -> str:
    """Write *names* for a message: sorted, quoted, or 'none'."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"


def shortened(value: object, length: int = 80) -> str:
    """Write *value* for a message, in at most *length* characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__ of the user's must not hide what we have to say
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else f"{text[: length - 1]}…"


def type_name(error: type[BaseException]) -> str:
    """Name a class of exceptions as it is recorded: with its module, unless it is a builtin."""
    return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"


def _indented(title: str, lines: Sequence[str]) -> str:
    return "\n    ".join((f"  {title}", *(lines or ("nothing",))))
