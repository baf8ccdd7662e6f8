"""What every command that talks to a running engine does first: read the settings, and connect as a client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiki.bootstrap import DEFAULT_AMQP_URL, broker_url, connect_client
from aiki.config import Settings, load_settings
from aiki.errors import BrokerUnavailableError
from aiki.observability import configure_logging
from aiki.sdk.client import Client

__all__ = ["settings_of", "with_client"]

T = TypeVar("T")


def settings_of(*, is_service: bool = False, **given: Any) -> Settings:
    """Read the settings of this process, and set up its logs: a service says what it does, a client what goes wrong.

    *given* is what the command line says, by the names of settings; ``None`` where it says nothing.
    """
    settings = load_settings(overrides={name: value for name, value in given.items() if value is not None})
    is_asked_for = "log_level" in settings.model_fields_set
    level = settings.log_level if is_service or is_asked_for else "error"
    configure_logging(level=level, style=settings.log_format)
    return settings


def with_client(work: Callable[[Client], Awaitable[T]], *, url: str | None, listen: bool = False) -> T:
    """Connect, do *work*, disconnect."""
    settings = settings_of(amqp_url=url)

    async def connected() -> T:
        async with connect_client(settings, listen=listen) as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except BrokerUnavailableError as error:
        if settings.amqp_url is not None or broker_url(settings) != DEFAULT_AMQP_URL:
            raise
        # Nobody said which broker: then the likely mistake is another one than the broker's address.
        hint = f"AIKI_AMQP_URL is not set, and no `aiki dev` is running for {settings.data_path()}"
        raise BrokerUnavailableError(error.message, hint=hint) from error
