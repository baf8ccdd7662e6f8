"""What the driver raises, in our words.

aiormq reports one lost connection in many ways: its own errors, ``OSError``,
``RuntimeError`` from a channel that is closed, and ``CancelledError``, because it
cancels its own tasks and whoever awaits them. The last one is told from a
cancellation of ours by the task, which nobody has asked to stop.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.exceptions import PAMQPException

from aiki.errors import BrokerUnavailableError, ConfigurationError
from aiki.observability import masked

__all__ = ["connecting", "reason_of", "talking"]

_DRIVER_ERRORS = (AMQPError, PAMQPException, OSError, EOFError, TimeoutError, RuntimeError)


def reason_of(error: BaseException | None) -> str:
    """Say why something ended, in one line."""
    if error is None or isinstance(error, asyncio.CancelledError) or (type(error) is Exception and not error.args):
        return "the connection was lost"
    text = " ".join(str(part) for part in error.args if part) or type(error).__name__
    return masked(text.replace("\n", " "))[:300]


def _was_cancelled_by_the_driver(error: BaseException) -> bool:
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() == 0


def _is_of_the_driver(error: Exception) -> bool:
    # A bare Exception is what it raises where a channel was closed and nobody said why.
    return isinstance(error, _DRIVER_ERRORS) or type(error) is Exception


@contextmanager
def talking(to_do: str) -> Iterator[None]:
    """Turn what the driver raises inside into ours; *to_do* says what could not be done.

    Raises:
        ConfigurationError: what is in the broker differs from what should be, or we may not do this.
        BrokerUnavailableError: everything else.
    """
    try:
        yield
    except ChannelPreconditionFailed as error:
        raise ConfigurationError(
            f"could not {to_do}: what is in RabbitMQ was declared differently: {reason_of(error)}",
            hint="compare with `aiki topology check`; a queue has to be empty and deleted to be declared anew",
        ) from error
    except ChannelAccessRefused as error:
        raise ConfigurationError(
            f"could not {to_do}: {reason_of(error)}",
            hint="the user lacks a permission; `aiki topology export` lists what each role needs",
        ) from error
    except ChannelNotFoundEntity as error:
        raise BrokerUnavailableError(
            f"could not {to_do}: {reason_of(error)}", hint="run `aiki topology apply`"
        ) from error
    except asyncio.CancelledError as error:
        if not _was_cancelled_by_the_driver(error):
            raise
        raise BrokerUnavailableError(f"could not {to_do}: the connection was lost") from error
    except Exception as error:
        if not _is_of_the_driver(error):
            raise
        raise BrokerUnavailableError(f"could not {to_do}: {reason_of(error)}") from error


@contextmanager
def connecting(address: str) -> Iterator[None]:
    """Turn what goes wrong while connecting to *address* (without its password) into a clear error.

    Raises:
        BrokerUnavailableError: with a hint at what to look at.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if not _was_cancelled_by_the_driver(error):
            raise
        raise BrokerUnavailableError(f"RabbitMQ at {address} closed the connection while connecting") from error
    except Exception as error:
        if not (_is_of_the_driver(error) or isinstance(error, ValueError | KeyError)):
            raise
        reason = reason_of(error)
        if "Connection.OpenOk" in reason:
            reason = "it refuses the virtual host"
        raise BrokerUnavailableError(
            f"cannot connect to RabbitMQ at {address}: {reason}", hint=_hint_for(error)
        ) from error


def _hint_for(error: BaseException) -> str:
    text = f"{error!r} {error}"
    # The driver swallows the broker's own words when the virtual host is refused, the last step of connecting.
    if "vhost" in text or "Connection.OpenOk" in text:
        return "the virtual host does not exist or the user has no permission there; see `rabbitmqctl list_vhosts`"
    if "ACCESS_REFUSED" in text:
        return "RabbitMQ refuses the user or its password; the user 'guest' may only connect from the same machine"
    if isinstance(error, TimeoutError):
        return "nothing answers there as RabbitMQ does; check the address, and firewalls on the way"
    return "is RabbitMQ running there, and is the address right? `aiki doctor` looks closer"
