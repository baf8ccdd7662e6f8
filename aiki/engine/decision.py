"""What comes out of a decision, and what goes into it besides the run and the event."""

from dataclasses import dataclass
from datetime import datetime

from aiki.engine.commands import Command
from aiki.engine.journal import JournalEntry
from aiki.engine.state import RunState

__all__ = ["Decision", "Moment"]

RETENTION_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What the core cannot know by itself: the time, and a secret.

    *token* becomes the id of a dispatch, if the decision makes one. It has to be fresh and unguessable
    for each decision: two orchestrators that both believe to own a run must never make the same pair.
    """

    now: datetime
    token: str
    retention: float = RETENTION_SECONDS
    """Seconds that finished runs are kept which do not say so themselves."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The run after an event, what it learnt, and the commands that follow.

    A *refused* event changed nothing because it does not fit the run as it was given. That counts only on
    fresh knowledge: with a run from a cache, load it again and decide again (rule 5).
    """

    run: RunState | None
    journal: tuple[JournalEntry, ...] = ()
    commands: tuple[Command, ...] = ()
    refused: bool = False
    parked: str | None = None
    """What is to be said of the event where it is kept with the dead letters: sent again later, it may be applied."""
