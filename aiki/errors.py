"""Every public error, one tree. Each says what is wrong, with the values at hand, and what to do."""

from collections.abc import Collection

__all__ = [
    "AikiError",
    "BrokerError",
    "BrokerUnavailableError",
    "ConfigurationError",
    "DeliveryLostError",
    "InvalidNameError",
    "PayloadError",
    "PayloadTooLargeError",
    "PublishUncertainError",
    "QueryTimeoutError",
    "StoreError",
    "StoreUnavailableError",
    "UnroutableError",
]


class AikiError(Exception):
    """The root of all errors of Aiki: a message, and a hint at what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class ConfigurationError(AikiError):
    """A setting is missing, wrong, or does not fit what is stored."""


class InvalidNameError(AikiError):
    """A name of a workflow, a version, a task or a queue cannot be one."""

    def __init__(self, what: str, name: str, *, reason: str) -> None:
        super().__init__(
            f"{name!r} cannot be the name of a {what}: {reason}",
            hint="use letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100 characters",
        )
        self.name = name


class PayloadError(AikiError):
    """A value cannot be written as JSON."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"the {what} cannot be written as JSON: {reason}",
            hint="pass values that pydantic can serialise, and no NaN or infinity",
        )


class PayloadTooLargeError(PayloadError):
    """A value is longer than what the broker and the store should carry."""

    def __init__(self, what: str, *, size: int, bytes_max: int) -> None:
        AikiError.__init__(
            self,
            f"the {what} takes {size:,} bytes as JSON, {bytes_max:,} are allowed",
            hint="store large data elsewhere and pass a reference to it",
        )
        self.size = size
        self.bytes_max = bytes_max


class BrokerError(AikiError):
    """Something went wrong with the broker."""


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached, refuses us, or does not answer in time. Nothing was sent."""


class PublishUncertainError(BrokerError):
    """The connection was lost, or time ran out, before the broker confirmed: what was sent may have arrived."""


class UnroutableError(BrokerError):
    """The broker has no queue for a message and returned it."""

    def __init__(self, exchange: str, routing_key: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"nothing is bound to exchange {exchange!r} for routing key {routing_key!r}",
            hint=hint or "run `aiki topology check`",
        )
        self.exchange = exchange
        self.routing_key = routing_key


class DeliveryLostError(BrokerError):
    """The subscription is gone; what it delivered and was not acknowledged is delivered again, to whoever subscribes."""


class QueryTimeoutError(BrokerError):
    """No orchestrator answered in time."""

    def __init__(self, *, timeout: float) -> None:
        super().__init__(
            f"no orchestrator answered within {timeout:g} s",
            hint="is one running? start it with `aiki orchestrator`, or look with `aiki doctor`",
        )


class StoreError(AikiError):
    """Something went wrong with the store."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached or refuses to write; nothing is known to have been kept. Trying again is safe."""


def listed(names: Collection[str]) -> str:
    """Write *names* for a message: sorted, quoted, or 'none'."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"
