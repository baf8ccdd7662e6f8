"""Silence: noticing, once, that nothing happens any more where something happened.

What happens is only noted, which costs next to nothing. A timer looks at it now and
then, and stops when there is nothing left to wait for: what is idle is not looked at.
"""

import asyncio
import random
from collections.abc import Callable

__all__ = ["Watch"]


class Watch:
    """Looks, some seconds after something happened, whether anything happened since.

    *look* is told whether it was silent all the time since the last look, and answers whether to look once more.
    """

    def __init__(self, seconds: float, look: Callable[[bool], bool]) -> None:
        self._seconds = seconds
        self._look = look
        self._is_stirred = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_on = False

    def begin(self) -> None:
        """Look from now on: that it begins is the first thing to happen."""
        self._is_on = True
        self.stir()

    def stir(self) -> None:
        """Note that something happened."""
        self._is_stirred = True
        if self._timer is None:
            self.look_later()

    def look_later(self) -> None:
        """Look again, though nothing happened."""
        if self._timer is None and self._is_on:
            # Hundreds that fell silent together need not ask a server at the same instant. Jitter is no secret.
            seconds = self._seconds * random.uniform(1.0, 1.5)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_time)

    def end(self) -> None:
        """Look no more."""
        self._is_on = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        was_silent, self._is_stirred = not self._is_stirred, False
        if self._look(was_silent):
            self.look_later()
