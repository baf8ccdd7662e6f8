"""The clock of the machine."""

import asyncio
import time
from datetime import UTC, datetime

from aiki.ports.clock import Clock

__all__ = ["SystemClock"]


class SystemClock(Clock):
    """The machine's own time, truncated to milliseconds."""

    def now(self) -> datetime:
        """Tell the time."""
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)

    def monotonic(self) -> float:
        """Tell seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(max(seconds, 0))
