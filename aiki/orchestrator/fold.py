"""Folding: what a batch of events makes of one run. Pure but for the secret of its tokens, which is drawn here."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aiki.engine.commands import ArmTimer, Command, ExecuteRun, ExecuteTask, SendEvent
from aiki.engine.decide import Moment, decide
from aiki.engine.events import DispatchDoubted, Event, RunRequested, TaskScheduled
from aiki.engine.holding import is_under_way
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import RunChange
from broker_topology import check_command_queue

__all__ = ["Folded", "fold"]

_NAMES_A_QUEUE = (RunRequested, TaskScheduled)


@dataclass(frozen=True, slots=True)
class Folded:
    """The run after its events, what is to be stored of that, and what is to be sent once it is."""

    run_id: str
    events: Sequence[Event]
    run: RunState | None
    change: RunChange | None
    """``None``: there is nothing to store."""
    commands: Sequence[Command]
    refused: int = 0
    failed: Sequence[tuple[Event, Exception]] = ()
    """Events that could not be decided, and why."""
    parked: Sequence[tuple[Event, str]] = ()
    """Events that the run has no room for, and what is to be said of them."""

    @property
    def is_doubtful(self) -> bool:
        """Whether this has to be decided again with a fresh run, before it counts (rule 5)."""
        return bool(self.refused or self.failed or self.parked)

    @property
    def is_armed(self) -> bool:
        """Whether the broker was given the run's next wake-up."""
        return any(isinstance(command, ArmTimer) for command in self.commands)


def fold(
    run_id: str,
    before: RunState | None,
    events: Sequence[Event],
    *,
    now: datetime,
    retention: float,
    again: bool = False,
) -> Folded:
    """Apply *events* to *before*, one after the other. *again*: they may have been applied already, and not sent."""
    run = before
    journal: list[JournalEntry] = []
    commands: list[Command] = []
    failed: list[tuple[Event, Exception]] = []
    parked: list[tuple[Event, str]] = []
    refused = 0
    secret = secrets.token_hex(12)
    for number, event in enumerate(events):
        try:
            if isinstance(event, _NAMES_A_QUEUE):
                # Whoever wrote it past the client was told nothing; a run without a queue could never go anywhere.
                check_command_queue(event.queue)
            decision = decide(run, event, Moment(now, f"{secret}-{number}", retention))
        except Exception as error:  # noqa: BLE001 - The event is parked with this as the reason; its neighbours go on.
            failed.append((event, error))
            continue
        run = decision.run
        journal.extend(decision.journal)
        commands.extend(decision.commands)
        refused += decision.refused
        if decision.parked is not None:
            parked.append((event, decision.parked))

    change = _change(before, run, tuple(journal))
    after = run if change is None else change.after
    needed = [command for command in commands if _is_needed(command, before, after, again=again)]
    return Folded(run_id, events, after, change, needed, refused, failed, parked)


def _change(before: RunState | None, after: RunState | None, journal: tuple[JournalEntry, ...]) -> RunChange | None:
    if after is None or (after is before and not journal):
        return None
    change = RunChange.between(before, after, journal)
    return change if change.writes_run or journal else None


def _is_needed(command: Command, before: RunState | None, after: RunState | None, *, again: bool) -> bool:
    """Tell whether *command* still makes sense at the end of its batch."""
    match command:
        case ExecuteRun():
            # A later event of the batch may have replaced, paused or ended this dispatch, which was never sent.
            return after is not None and after.status is RunStatus.QUEUED and command.pair == after.pair
        case ExecuteTask():
            # Its end may be in the same batch, where the order was given before and is only said again.
            return after is not None and is_under_way(after, command.task_id)
        case SendEvent(event=DispatchDoubted() as doubt):
            # Only a dispatch whose cause was never acknowledged can have been stored and not sent, and then the cause
            # is here again. Doubting any other one, because of a cause that was said twice, disturbs its holder.
            return again and before is not None and doubt.pair == before.pair
        case _:
            return True
