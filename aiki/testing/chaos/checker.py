"""What must hold after a chaos run, whatever went wrong in it. Pure: from a history to what is wrong with it."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from aiki.engine.ids import idempotency_key_of
from aiki.engine.journal import EntryKind, JournalEntry
from aiki.engine.payload import load_payload
from aiki.engine.state import RunState
from aiki.engine.status import FINAL
from aiki.testing.chaos.history import Attempted, Called, History, Replayed, Written
from aiki.testing.chaos.workload import BURST_STEPS, job_of, number_of

__all__ = ["CHECKS", "Violation", "check", "executed_again", "not_promised"]

_ENDS = frozenset(
    {
        EntryKind.TASK_COMPLETED,
        EntryKind.TASK_FAILED,
        EntryKind.CHILD_COMPLETED,
        EntryKind.CHILD_FAILED,
        EntryKind.SIGNAL_RECEIVED,
        EntryKind.TIMER_FIRED,
    }
)
_RECORDS = frozenset({EntryKind.TASK_COMPLETED, EntryKind.TASK_FAILED})

# How long before the loss of its data a broker may have confirmed what nobody had stored yet. It is milliseconds when
# all is well; with the other faults at the same time, as long as the orchestrators are away.
NOT_STORED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    kind: str
    """``lost``, ``duplicated``, ``wrong``, or what else is not as promised."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def check(history: History) -> list[Violation]:
    """Tell everything that is wrong with *history*."""
    return list(chain.from_iterable(look(history) for look in CHECKS))


def not_promised(history: History) -> set[str]:
    """Name the runs that only the broker had when it lost its data: they are gone, and nobody was told otherwise."""
    stored = {accepted.run_id for accepted in history.accepted if accepted.is_stored}
    return {
        accepted.run_id
        for accepted in history.accepted
        if accepted.run_id not in history.runs and accepted.run_id not in stored
        if any(wipe.began - NOT_STORED_SECONDS <= accepted.at <= wipe.healed for wipe in history.wipes)
    }


def executed_again(history: History) -> int:
    """Count attempts that were executed more than once: allowed where nobody could know of the first time."""
    times = Counter((attempt.run_id, attempt.key, attempt.attempt) for attempt in history.attempts)
    return sum(number - 1 for number in times.values())


def accepted_runs_are_there(history: History) -> Iterator[Violation]:
    """Every run that was accepted is in the store, and over."""
    excused = not_promised(history)
    for run_id in {accepted.run_id for accepted in history.accepted}:
        if run_id not in history.runs and run_id not in excused:
            yield Violation("lost", f"run {run_id} was accepted, and is not there")
    for run in history.runs.values():
        if not run.status.is_final:
            yield Violation("stuck", f"run {run.run_id} of {run.workflow} is {run.status} for ever")


def runs_are_asked_for_once(history: History) -> Iterator[Violation]:
    """No run came about that nobody asked for or that was refused, and no job has two."""
    calls = {call.job: call for call in history.calls}
    runs: dict[int, list[str]] = defaultdict(list)
    for run in _parents(history):
        runs[number_of(run)].append(run.run_id)
    for job, ids in runs.items():
        yield from _asked_for_once(job, ids, calls.get(job))


def _asked_for_once(job: int, run_ids: Sequence[str], call: Called | None) -> Iterator[Violation]:
    if call is None:
        yield Violation("duplicated", f"run {run_ids[0]} is of job {job}, which nobody asked for")
    elif call.outcome == "refused":
        yield Violation("wrong", f"run {run_ids[0]} is there, and its client was told that nothing was sent")
    if len(run_ids) > 1:
        yield Violation("duplicated", f"job {job} has {len(run_ids)} runs: {', '.join(sorted(run_ids))}")


def outcomes_are_right(history: History) -> Iterator[Violation]:
    """Every run ends as it does when nothing goes wrong, and clients hear the same."""
    for run in history.runs.values():
        if run.status.is_final:
            yield from _right_end(run)
    for heard in history.heard:
        stored = history.runs.get(heard.run_id)
        if stored is None:
            yield Violation("lost", f"a client heard of the end of run {heard.run_id}, which is not there")
        elif (heard.status, heard.result) != (stored.status, _result_of(stored)):
            yield Violation(
                "wrong",
                f"a client heard that run {heard.run_id} is {heard.status} with {heard.result}; "
                f"it is {stored.status} with {_result_of(stored)}",
            )


def _right_end(run: RunState) -> Iterator[Violation]:
    job = job_of(number_of(run))
    expected = (job.status, job.result)
    if run.parent is not None:
        expected = (job.status, job.number + BURST_STEPS)
    if (run.status, _result_of(run)) != expected:
        why = "" if run.failure is None else f" ({run.failure.type}: {run.failure.message})"
        yield Violation(
            "wrong",
            f"run {run.run_id} of {run.workflow} is {run.status} with {_result_of(run)}{why}, not {expected[0]} with "
            f"{expected[1]}",
        )


def _result_of(run: RunState) -> object:
    return None if run.result is None else load_payload(run.result)


def journals_are_whole(history: History) -> Iterator[Violation]:
    """What was learnt was learnt once, in order, by holders that succeeded each other."""
    for run_id, entries in history.journals.items():
        if [entry.seq for entry in entries] != list(range(1, len(entries) + 1)):
            yield Violation("journal", f"run {run_id} has gaps: {[entry.seq for entry in entries]}")
        for first, second in pairwise(entries):
            if second.at < first.at or second.epoch < first.epoch:
                yield Violation("journal", f"run {run_id}: stamp or epoch of #{second.seq} is before #{first.seq}")
        for what, times in _recorded(entries).items():
            if times > 1:
                yield Violation("duplicated", f"run {run_id}: {what} was recorded {times} times")
    for run_id in history.journals.keys() - history.runs.keys():
        yield Violation("journal", f"there is a journal of run {run_id}, which is not there")


def _recorded(entries: Sequence[JournalEntry]) -> Counter[object]:
    recorded: Counter[object] = Counter()
    for entry in entries:
        if entry.kind in _ENDS:
            recorded[entry.operation] += 1
        elif entry.kind is EntryKind.ATTEMPT_FAILED:
            recorded[entry.operation, entry.attempt] += 1
        if entry.source is not None:
            recorded[entry.kind, entry.source] += 1
    return recorded


def retries_equal_failures(history: History) -> Iterator[Violation]:
    """Losing a worker is no attempt: as many failures are recorded as tasks really had."""
    for run in _parents(history):
        expected = job_of(number_of(run)).failed_attempts
        failed = sum(entry.kind is EntryKind.ATTEMPT_FAILED for entry in history.journals.get(run.run_id, ()))
        if run.status.is_final and failed != expected:
            yield Violation("retries", f"run {run.run_id} has {failed} failed attempts, not {expected}")


def nothing_recorded_runs_again(history: History) -> Iterator[Violation]:
    """A worker that has the outcome of a task in the journal before it does not execute the task."""
    records = _records(history)
    beginnings: dict[tuple[int, str], list[Replayed]] = defaultdict(list)
    for begun in sorted(history.replays, key=lambda begun: begun.at):
        beginnings[begun.process, begun.run_id].append(begun)
    once: set[tuple[Replayed, str, int]] = set()
    for attempt in sorted(history.attempts, key=lambda attempt: attempt.at):
        replay = _replay_before(attempt, beginnings)
        if replay is None or attempt.task == "remote":
            continue  # Tasks for other workers are executed where nobody has replayed the run.
        entry = records.get((attempt.run_id, attempt.key))
        if entry is not None and entry.seq <= replay.seen:
            yield Violation(
                "duplicated",
                f"run {attempt.run_id}: {entry.operation} was executed by process {attempt.process}, which had its "
                f"outcome (#{entry.seq} of {replay.seen})",
            )
        execution = (replay, attempt.key, attempt.attempt)
        if execution in once:
            yield Violation("duplicated", f"run {attempt.run_id}: {attempt.task} was executed twice by one holder")
        once.add(execution)


def _records(history: History) -> dict[tuple[str, str], JournalEntry]:
    """Find the outcomes of tasks, by run and idempotency key."""
    return {
        (run_id, idempotency_key_of(run_id, history.runs[run_id].incarnation, entry.operation or "")): entry
        for run_id, entries in history.journals.items()
        if run_id in history.runs
        for entry in entries
        if entry.kind in _RECORDS
    }


def _replay_before(attempt: Attempted, beginnings: dict[tuple[int, str], list[Replayed]]) -> Replayed | None:
    replays = beginnings.get((attempt.process, attempt.run_id), [])
    number = bisect_right(replays, attempt.at, key=lambda replay: replay.at)
    return replays[number - 1] if number else None


def runs_have_one_owner(history: History) -> Iterator[Violation]:
    """Of every run there is one line of writes: no revision is skipped, epochs grow, each has one pair and holder."""
    last: dict[str, Written] = {}
    for write in history.writes:
        before = last.get(write.run_id)
        if before is not None and write.revision <= before.revision:
            continue  # Reported twice, after the stream was resumed.
        last[write.run_id] = write
        if before is not None:
            yield from _follows(before, write)


def _follows(before: Written, after: Written) -> Iterator[Violation]:
    where = f"run {after.run_id}, revision {after.revision}"
    if after.revision != before.revision + 1:
        yield Violation("owners", f"{where}: a revision was skipped after {before.revision}")
    if after.epoch < before.epoch or after.base_seq < before.base_seq:
        yield Violation("owners", f"{where}: the epoch or the base went back")
    if before.status in FINAL and after.status != before.status:
        yield Violation("wrong", f"{where}: it was {before.status}, and became {after.status}")
    if after.epoch == before.epoch and after.dispatch_id != before.dispatch_id:
        yield Violation("owners", f"{where}: one epoch, two dispatches")
    if after.epoch == before.epoch and before.holder is not None and after.holder not in (None, before.holder):
        yield Violation("owners", f"{where}: one dispatch, two holders: {before.holder} and {after.holder}")


def nothing_is_parked(history: History) -> Iterator[Violation]:
    """No fault makes a dead letter: nothing here is unreadable, and no run kills its workers."""
    for letter in history.letters:
        yield Violation("dead letter", f"{letter.reason} from {letter.origin}, run {letter.run_id}: {letter.detail}")


def nothing_is_left_over(history: History) -> Iterator[Violation]:
    """When everything is done, nothing waits anywhere, and progress came back after every fault."""
    for what in history.left_over:
        yield Violation("left over", what)
    for run in history.runs.values():
        if run.status.is_final and (run.pending or run.waits):
            yield Violation("left over", f"run {run.run_id} is {run.status}, and waits for something")
    for fault in history.faults:
        if fault.stuck:
            yield Violation("stuck", f"no progress after {fault.kind} of {fault.target}")


def _parents(history: History) -> Iterator[RunState]:
    """Go through the runs that clients have asked for."""
    return (run for run in history.runs.values() if run.parent is None)


CHECKS = (
    accepted_runs_are_there,
    runs_are_asked_for_once,
    outcomes_are_right,
    journals_are_whole,
    retries_equal_failures,
    nothing_recorded_runs_again,
    runs_have_one_owner,
    nothing_is_parked,
    nothing_is_left_over,
)
