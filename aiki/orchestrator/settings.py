"""What can be set on an orchestrator, with defaults that suit most."""

from dataclasses import dataclass

from aiki.engine.decision import RETENTION_SECONDS

__all__ = ["OrchestratorSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """How much an orchestrator takes at once, and how long it waits for what. Durations are seconds."""

    name: str | None = None
    """How it is called among others; made up from host and process where it is not said."""

    prefetch: int = 200
    """Messages of one partition that the broker hands over without an acknowledgement."""
    batch_events: int = 1000
    """Events that are decided and stored together: what comes later waits no longer than this takes."""
    company: float = 0.02
    """How long what a run says on its way may wait for what it says next, so that both are stored with one write.

    Nobody waits for such events, unless the broker confirms only what was handled: then this has to be 0.
    """
    commit_changes: int = 1000
    """Runs in one write of the store."""
    cache_bytes: int = 64 * 1024 * 1024
    """What the runs kept in memory may take, all partitions together; an estimate."""

    journal_bytes: int = 256 * 1024
    """How much of a journal travels with a command; the worker asks for the rest in pages."""
    journal_entries: int = 1000

    send_timeout: float = 30.0
    query_timeout: float = 10.0
    retry_delay: float = 0.1
    """The first wait after a failure of the broker or the store; doubled each time, with jitter."""
    retry_delay_max: float = 5.0

    heartbeat: float = 10.0
    presence: float = 30.0
    """How long an orchestrator counts as present without a heartbeat."""
    timer_horizon: float = 60.0
    """Timers that are due within this are kept in memory."""
    retry_slack: float = 2.0
    """How late the broker's delay queue may bring back a retry before the timer of the store does."""
    sweep_every: float = 30.0
    overdue_slack: float = 10.0
    """How late a timer may be before any orchestrator fires it, whoever owns its partition."""
    lost_after: float = 300.0
    """How long a run may be queued before its order counts as lost, if nothing waits in its queue."""
    retention: float = RETENTION_SECONDS
    """How long finished runs are kept that do not say so themselves."""

    health: tuple[str, int] | None = None
    """Where the health endpoint listens: host and port (0: any free one)."""
