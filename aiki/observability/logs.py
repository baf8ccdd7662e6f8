"""Structured logs that behave in somebody else's process.

A log line is an event with fields: ``log.info("task.retried", attempt=2)``. It is
handed to the standard library's logging under the name of its module, so an
application that embeds Aiki hears as much of it as its own configuration says,
and nothing is printed that nobody asked for. ``configure_logging`` is for the
processes that are Aiki's own: the command line and the demo.
"""

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LogFormat", "Logger", "configure_logging", "get_logger"]


class Logger(structlog.stdlib.BoundLogger):
    """``bind(run_id=…)`` gives a logger that says so in every line."""

    def debug(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Say what only somebody who looks for a fault wants to hear; nearly free where nobody does."""
        return super().debug(event, *args, **fields) if self.isEnabledFor(logging.DEBUG) else None


LogFormat = Literal["auto", "console", "json"]

# What the drivers have to say, our adapters say in our words; who debugs wants to hear both.
_DRIVERS = ("aio_pika", "aiormq", "pymongo", "motor")

_FIELDS = "aiki_fields"


def get_logger(name: str) -> Logger:
    """Make the logger of a module: ``log = get_logger(__name__)``. Fields bound to the context are in each line."""
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=Logger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _hand_over,
        ],
        cache_logger_on_first_use=True,
    )
    return cast(Logger, logger)


def configure_logging(*, level: str = "info", style: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Write the logs of this process to *stream* (standard error): for people on a terminal, as JSON otherwise.

    May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    for_people = style == "console" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_EventFormatter(_console(colors=stream.isatty()) if for_people else _json()))

    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for driver in _DRIVERS:
        logging.getLogger(driver).setLevel(logging.INFO if root.level <= logging.DEBUG else logging.CRITICAL)


def _hand_over(_logger: WrappedLogger, _method: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Hand an event to the standard library: readable as it is, with its fields beside it for our own formatter."""
    kwargs = {name: event.pop(name) for name in ("exc_info", "stack_info", "stacklevel") if name in event}
    text = " ".join([str(event["event"]), *(f"{name}={value!r}" for name, value in event.items() if name != "event")])
    return (text,), {"extra": {_FIELDS: dict(event)}, **kwargs}


class _EventFormatter(logging.Formatter):
    """Writes records as events with fields, those of other libraries too."""

    def __init__(self, processors: list[Processor]) -> None:
        super().__init__()
        self._processors = processors

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, _FIELDS, None)
        event: MutableMapping[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(fields if fields is not None else {"event": record.getMessage()}),
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info

        line: Any = event
        for processor in self._processors:
            line = processor(None, record.levelname, line)
        return str(line)


def _console(*, colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )
    return [_without_logger_name, _local_time, renderer]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]


def _without_logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The event's own name says where it is from; a second name only makes the line longer.
    if event["logger"].startswith("aiki"):
        del event["logger"]
    return event


def _local_time(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["at"] = datetime.fromisoformat(event["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return event
