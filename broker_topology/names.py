"""Names: the fixed ones, and the rules for those that come from users.

A wrong name is refused where it is defined, with a reason; the broker would
close the channel over it, or quietly treat it as something else.
"""

import re

__all__ = [
    "COMMANDS",
    "COMMAND_QUEUE_PATTERN",
    "CONTROL",
    "DEAD",
    "DEAD_LETTERS",
    "EVENTS",
    "NAME_BYTES_MAX",
    "NAME_PATTERN",
    "NOTICES",
    "QUERIES",
    "RETRY",
    "QueueNameError",
    "RetryDelayError",
    "check_command_queue",
    "check_word",
]

EVENTS = "aiki.events"
COMMANDS = "aiki.commands"
RETRY = "aiki.retry"
NOTICES = "aiki.notices"
CONTROL = "aiki.control"
QUERIES = "aiki.queries"
DEAD = "aiki.dead"
DEAD_LETTERS = "aiki.dead-letters"

# A short string of AMQP; names of queues and exchanges and routing keys are such.
NAME_BYTES_MAX = 255

# <workflow>@<version>, or the name of a task queue. Names of Aiki and of RabbitMQ itself are neither.
# The same text is a regular expression for RabbitMQ's permissions, which are Perl's, like Python's.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
COMMAND_QUEUE_PATTERN = rf"(?!aiki\.|amq\.){NAME_PATTERN}(@{NAME_PATTERN})?"

_COMMAND_QUEUE = re.compile(COMMAND_QUEUE_PATTERN)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class QueueNameError(ValueError):
    """A name cannot be that of a queue, or be part of a routing key."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} cannot be used: {reason}")
        self.name = name
        self.reason = reason


class RetryDelayError(ValueError):
    """There is no retry queue for a delay."""

    def __init__(self, delay_ms: int) -> None:
        super().__init__(f"{delay_ms} ms is not on the retry grid")
        self.delay_ms = delay_ms


def check_command_queue(name: str) -> str:
    """Return *name* if a queue of commands can have it.

    Raises:
        QueueNameError: it is too long, has wrong characters, or is reserved.
    """
    if len(name.encode()) > NAME_BYTES_MAX:
        raise QueueNameError(name[:40] + "…", f"it is longer than {NAME_BYTES_MAX} bytes")
    if name.startswith(("aiki.", "amq.")):
        raise QueueNameError(name, "names that start with 'aiki.' or 'amq.' are reserved")
    if _COMMAND_QUEUE.fullmatch(name) is None:
        raise QueueNameError(
            name,
            "a queue is named <workflow>@<version> or <name>, each of letters, digits, '.', '_' and '-',"
            " starting with a letter or digit, at most 100 characters",
        )
    return name


def check_word(name: str, *, what: str, bytes_max: int = 128) -> str:
    """Return *name* if it can be part of a routing key and of a queue's name.

    Raises:
        QueueNameError: it is empty, too long, or has characters that mean something to a topic exchange.
    """
    if len(name.encode()) > bytes_max:
        raise QueueNameError(name[:40] + "…", f"the {what} is longer than {bytes_max} bytes")
    if _WORD.fullmatch(name) is None:
        raise QueueNameError(name, f"a {what} is made of letters, digits, '.', '_', ':' and '-'")
    return name
