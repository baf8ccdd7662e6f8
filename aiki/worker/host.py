"""What the execution of a run needs from the worker around it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from aiki.engine.events import Event
from aiki.engine.queries import Answer, Query
from aiki.ports.clock import Clock

__all__ = ["Host"]


class Host(Protocol):
    """The worker, as an execution sees it. Tests bring their own."""

    @property
    def worker(self) -> str:
        """The id of the worker: what it says carries it."""
        ...

    @property
    def clock(self) -> Clock:
        """The time, and waiting."""
        ...

    @property
    def max_in_place_wait(self) -> float:
        """Seconds that a run may wait for a timer or a retry while it is held; beyond, it is suspended."""
        ...

    @property
    def grace(self) -> float:
        """Seconds that task attempts under way get when a run is handed back."""
        ...

    def publish(self, events: Sequence[Event]) -> Awaitable[None]:
        """Publish *events*, in order, behind those of earlier calls; done once the broker confirmed all of them.

        The order is that of the calls (or of scheduling, where this is a coroutine function): the
        caller hands what is returned to the event loop at once, and does not wait before it calls again.

        Raises (when awaited):
            AikiError: they are not going to be confirmed: the run was abandoned.
        """
        ...

    async def ask(self, query: Query) -> Answer:
        """Ask an orchestrator, and go on asking until one answers.

        Raises:
            AikiError: there is not going to be an answer: the run was abandoned.
        """
        ...

    async def run_in_thread(self, function: Callable[[], Any]) -> Any:
        """Call *function* in a thread of the worker, in the context of the caller. Raises what it raises."""
        ...

    def new_id(self) -> str:
        """Make an id that nobody has made before."""
        ...
