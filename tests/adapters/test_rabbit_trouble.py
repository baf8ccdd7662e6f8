"""What the driver raises becomes ours; what is a defect of ours stays what it is."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import aiormq
import pytest

from aiki.adapters.broker.rabbitmq.trouble import connecting, talking
from aiki.errors import BrokerUnavailableError

WAYS = pytest.mark.parametrize("way", [talking, connecting])
Way = Callable[[str], AbstractContextManager[None]]


@WAYS
@pytest.mark.parametrize(
    "error",
    [
        aiormq.exceptions.ConnectionClosed(320, "forced"),
        aiormq.exceptions.ChannelInvalidStateError("closed"),
        ConnectionResetError(),
        TimeoutError(),
        RuntimeError("closed"),
        # The driver ends the calls of a channel that was closed without a reason with just this.
        Exception(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_lost_connection_is_told_as_one_however_the_driver_puts_it(way: Way, error: BaseException) -> None:
    with pytest.raises(BrokerUnavailableError), way("consume"):
        raise error


@WAYS
def test_a_defect_is_not_taken_for_a_lost_connection(way: Way) -> None:
    with pytest.raises(AttributeError), way("consume"):
        raise AttributeError("no such thing")
