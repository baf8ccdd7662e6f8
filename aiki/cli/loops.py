"""The event loop of a process of ours: that of asyncio, or uvloop where the settings ask for it."""

import asyncio
from collections.abc import Callable

from aiki.config import Settings
from aiki.errors import ConfigurationError

__all__ = ["runner_of"]

_Factory = Callable[[], asyncio.AbstractEventLoop]


def runner_of(settings: Settings) -> asyncio.Runner:
    """Make what runs this process's coroutines.

    Raises:
        ConfigurationError: uvloop is asked for, and is not there.
    """
    return asyncio.Runner(loop_factory=_uvloop() if settings.uvloop else None)


def _uvloop() -> _Factory:
    try:
        import uvloop
    except ImportError as error:
        raise ConfigurationError(
            f"AIKI_UVLOOP asks for uvloop, which cannot be imported: {error}", hint="pip install 'aiki[uvloop]'"
        ) from error
    factory: _Factory = uvloop.new_event_loop
    return factory
