"""Sending what was decided, once it is stored."""

from collections.abc import Sequence

from aiki.engine.commands import ArmTimer, Command, DeadLetter, ExecuteRun, ParkDeadLetter, SendEvent, WorkerCommand
from aiki.engine.ids import letter_id_of
from aiki.errors import AikiError, BrokerError
from aiki.observability import get_logger
from aiki.orchestrator.services import Services

__all__ = ["Outbox"]

log = get_logger(__name__)

_SUSPECTS_MAX = 10_000


class Outbox:
    """Sends commands in windows.

    When one of a window can never be sent (it is too large, say), nobody knows which of the others went
    out, so the window fails as if the broker had been lost. Its commands are suspects from then on, and what follows
    from the same events is sent one by one: the one that cannot be sent fails alone, and is parked instead.
    """

    def __init__(self, services: Services) -> None:
        self._broker = services.broker
        self._clock = services.clock
        self._stats = services.stats
        self._timeout = services.settings.send_timeout
        self._suspects: set[tuple[str, str]] = set()

    async def send(self, commands: Sequence[Command]) -> None:
        """Send *commands*; returns once all are safe.

        Raises:
            AikiError: any of them may have been sent. Give the deliveries back.
        """
        if not commands:
            return
        if self._suspects and not self._suspects.isdisjoint(map(_identity, commands)):
            await self._send_each(commands)
        else:
            await self._send_window(commands)
        self._stats.commands_sent += len(commands)

    async def _send_window(self, commands: Sequence[Command]) -> None:
        try:
            await self._broker.send(commands, timeout=self._timeout)
        except BrokerError:
            raise
        except AikiError:
            if len(self._suspects) > _SUSPECTS_MAX:
                self._suspects.clear()  # Those that never came again; the guilty one will be back.
            self._suspects.update(map(_identity, commands))
            raise

    async def _send_each(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                await self._broker.send((command,), timeout=self._timeout)
            except BrokerError:
                raise
            except AikiError as error:
                await self._park(command, error)
            self._suspects.discard(_identity(command))

    async def _park(self, command: Command, error: AikiError) -> None:
        log.error("command.cannot_be_sent", command=command.type, error=error.message)
        if not isinstance(command, WorkerCommand):
            return  # A notice, a timer, a letter: what it says is in the store, and this line is its trace.
        epoch = command.pair.epoch if isinstance(command, ExecuteRun) else 0
        letter = DeadLetter(
            id=letter_id_of(command.run_id, command.incarnation, epoch),
            reason="the command cannot be sent",
            at=self._clock.now(),
            origin=command.queue,
            body=command.input,
            run_id=command.run_id,
            detail=error.message,
        )
        await self._broker.send((ParkDeadLetter(letter=letter),), timeout=self._timeout)


def _identity(command: Command) -> tuple[str, str]:
    """Name a command so that it is recognised when it is made again, by another decision about the same run."""
    match command:
        case SendEvent() | ArmTimer():
            return command.event.type, command.event.run_id
        case ParkDeadLetter():
            return command.type, command.letter.id
        case _:
            return command.type, command.run_id
