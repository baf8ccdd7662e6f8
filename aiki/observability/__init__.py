"""Logging: events with fields, handed to the standard library so that the application decides where they go."""

from aiki.observability.logs import Logger, configure_logging, get_logger
from aiki.observability.secrets import masked

__all__ = ["Logger", "configure_logging", "get_logger", "masked"]
