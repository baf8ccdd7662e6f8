"""The orchestrator: moves runs forward. It never runs users' code, and is the only part that knows the store."""

from aiki.orchestrator.rebuild import RebuildReport, rebuild
from aiki.orchestrator.service import Orchestrator
from aiki.orchestrator.settings import OrchestratorSettings

__all__ = ["Orchestrator", "OrchestratorSettings", "RebuildReport", "rebuild"]
