"""The clock: what time it is, and waiting."""

from datetime import datetime
from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Time as the services see it. Tests move it by hand."""

    def now(self) -> datetime:
        """Tell the time: aware, UTC, truncated to milliseconds (the store keeps no more)."""
        ...

    def monotonic(self) -> float:
        """Tell seconds since some moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; at least one turn of the event loop, however small *seconds* is."""
        ...
