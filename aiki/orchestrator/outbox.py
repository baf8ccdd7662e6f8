"""Sending what was decided, once it is stored."""

from collections.abc import Sequence

from aiki.engine.commands import Command, DeadLetter, ExecuteRun, ParkDeadLetter, WorkerCommand
from aiki.engine.ids import letter_id_of
from aiki.errors import PayloadTooLargeError
from aiki.observability import get_logger
from aiki.orchestrator.services import Services

__all__ = ["Outbox"]

log = get_logger(__name__)


class Outbox:
    """Sends commands in windows.

    When one of a window is too large to be sent, nobody knows which of the others went out, so the
    window fails as if the broker had been lost. What follows is sent one by one until a window went well:
    then the one that is too large fails alone, and is parked instead.
    """

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._clock = services.clock
        self._stats = services.stats
        self._timeout = services.settings.send_timeout
        self._is_suspicious = False

    async def send(self, commands: Sequence[Command]) -> None:
        """Send *commands*; returns once all are safe.

        Raises:
            BrokerError, PayloadTooLargeError: any of them may have been sent. Give the deliveries back.
        """
        if not commands:
            return
        if self._is_suspicious:
            await self._send_each(commands)
        else:
            await self._send_window(commands)
        self._stats.commands_sent += len(commands)

    async def _send_window(self, commands: Sequence[Command]) -> None:
        try:
            await self._broker.send(commands, timeout=self._timeout)
        except PayloadTooLargeError:
            self._is_suspicious = True
            raise

    async def _send_each(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                await self._broker.send((command,), timeout=self._timeout)
            except PayloadTooLargeError as error:
                await self._park(command, error)
        self._is_suspicious = False

    async def _park(self, command: Command, error: PayloadTooLargeError) -> None:
        log.error("command.too_large", command=command.type, size=error.size, error=error.message)
        if not isinstance(command, WorkerCommand):
            return  # A notice, a timer, a letter: what it says is in the store, and this line is its trace.
        epoch = command.pair.epoch if isinstance(command, ExecuteRun) else 0
        letter = DeadLetter(
            id=letter_id_of(command.run_id, command.incarnation, epoch),
            reason="the command is too large to be sent",
            at=self._clock.now(),
            origin=command.queue,
            body=command.input if len(command.input) < error.bytes_max // 2 else "",
            run_id=command.run_id,
            detail=error.message,
        )
        await self._broker.send((ParkDeadLetter(letter=letter),), timeout=self._timeout)
