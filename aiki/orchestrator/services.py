"""What all parts of an orchestrator share."""

from dataclasses import dataclass

from aiki.orchestrator.patience import StorePatience
from aiki.orchestrator.settings import OrchestratorSettings
from aiki.orchestrator.stats import Stats
from aiki.ports.broker import OrchestratorBroker
from aiki.ports.clock import Clock
from aiki.ports.store import Store

__all__ = ["Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """The world outside, as an orchestrator sees it, and how patient it is with it."""

    broker: OrchestratorBroker
    store: Store
    clock: Clock
    settings: OrchestratorSettings
    stats: Stats
    patience: StorePatience
