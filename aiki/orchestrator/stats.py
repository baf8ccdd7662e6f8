"""What an orchestrator counts: for its health endpoint, its presence, and whoever measures it."""

from dataclasses import asdict, dataclass

__all__ = ["Stats"]


@dataclass(slots=True)
class Stats:
    """Counters since the start. They only grow, except for ``in_hand``."""

    batches: int = 0
    messages: int = 0
    events: int = 0
    runs_loaded: int = 0
    runs_written: int = 0
    entries_written: int = 0
    commands_sent: int = 0
    events_refused: int = 0
    events_parked: int = 0
    events_forwarded: int = 0
    commits: int = 0
    commits_stale: int = 0
    subscriptions_lost: int = 0
    timers_fired: int = 0
    timers_repaired: int = 0
    dispatches_doubted: int = 0
    holders_asked: int = 0
    runs_expired: int = 0
    queries_answered: int = 0
    dead_letters_stored: int = 0
    in_hand: int = 0
    """Messages that were taken and are not acknowledged yet."""

    def as_dict(self) -> dict[str, int]:
        """Write the counters for a machine to read."""
        return asdict(self)
