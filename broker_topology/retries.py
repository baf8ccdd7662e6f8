"""The retry queues: one per delay, on a fixed grid.

All messages of a queue wait equally long, so first in is first due and nothing
blocks what is behind it. When its time is over the broker itself puts a message
back into the partition that it came from: the routing key stays the partition.
"""

from broker_topology.names import RETRY, RetryDelayError

__all__ = ["RETRY_GRID_MS", "retry_name"]

_FIRST_MS, _LAST_MS, _STEPS_PER_DECADE = 100, 3_600_000, 20


def _grid() -> tuple[int, ...]:
    values, step = [], 0
    while (value := round(_FIRST_MS * 10 ** (step / _STEPS_PER_DECADE))) < _LAST_MS:
        values.append(value)
        step += 1
    return (*values, _LAST_MS)


RETRY_GRID_MS = _grid()
"""Milliseconds from 100 ms to 1 h, 20 steps per decade. The engine snaps delays to the same values."""

_KNOWN = frozenset(RETRY_GRID_MS)


def retry_name(delay_ms: int) -> str:
    """Name the exchange and the queue for a delay.

    Raises:
        RetryDelayError: the delay is not on the grid.
    """
    if delay_ms not in _KNOWN:
        raise RetryDelayError(delay_ms)
    return f"{RETRY}.{delay_ms}"
