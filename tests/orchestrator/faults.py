"""Faults at a chosen point: everything that an orchestrator does to the world passes through here, and may fail."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiki.adapters.broker.memory import MemoryBroker
from aiki.errors import AikiError, BrokerUnavailableError, PublishUncertainError, StoreUnavailableError
from aiki.ports.broker import Delivery, Subscription
from aiki.ports.store import Store


class Faults:
    """Counts the points at which an orchestrator may be hit, before and after each call, and hits it at one of them.

    *kill*: the call never comes back, as for a process that died in it. Otherwise it raises what a
    server that went away makes it raise.
    """

    def __init__(self, at: int, *, kill: bool) -> None:
        self.at = at
        self.kill = kill
        self.passed = 0
        self.hit = asyncio.Event()
        self.where = ""

    async def around(self, name: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Do *call*, unless this is where it is hit."""
        await self._point(f"before {name}")
        answer = await call()
        await self._point(f"after {name}")
        return answer

    async def _point(self, name: str) -> None:
        if self.hit.is_set() and self.kill:
            await asyncio.Future()  # The dead do nothing more.
        self.passed += 1
        if self.passed - 1 != self.at:
            return
        self.where = name
        self.hit.set()
        if self.kill:
            await asyncio.Future()
        raise _error_at(name)


def _error_at(name: str) -> AikiError:
    if "store" in name:
        return StoreUnavailableError(f"hit {name}")
    if name.startswith("before"):
        return BrokerUnavailableError(f"hit {name}")
    return PublishUncertainError(f"hit {name}")


class FaultyStore:
    """A store whose calls on the way of a run may fail."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def load(self, *args: Any) -> Any:
        return await self._faults.around("store.load", lambda: _call(self._store.load, *args))

    async def commit(self, *args: Any) -> Any:
        return await self._faults.around("store.commit", lambda: _call(self._store.commit, *args))

    async def journals(self, *args: Any) -> Any:
        return await self._faults.around("store.journals", lambda: _call(self._store.journals, *args))

    async def due(self, *args: Any, **kwargs: Any) -> Any:
        return await self._faults.around("store.due", lambda: _call(self._store.due, *args, **kwargs))


class FaultyBroker:
    """A broker whose calls on the way of a run may fail."""

    def __init__(self, broker: MemoryBroker, faults: Faults) -> None:
        self.broker = broker
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def send(self, *args: Any, **kwargs: Any) -> None:
        await self._faults.around("send", lambda: _call(self.broker.send, *args, **kwargs))

    async def consume_events(self, *args: Any, **kwargs: Any) -> Any:
        return FaultySubscription(await self.broker.consume_events(*args, **kwargs), self._faults)


class FaultySubscription:
    """A subscription whose acknowledgements may fail."""

    def __init__(self, subscription: Subscription[Any], faults: Faults) -> None:
        self._subscription = subscription
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    async def acknowledge(self, deliveries: Sequence[Delivery[Any]]) -> None:
        await self._faults.around("acknowledge", lambda: _call(self._subscription.acknowledge, deliveries))


async def _call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await method(*args, **kwargs)


class SwitchedStore:
    """A store that can be taken away."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_away = False
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def unless_away(*args: Any, **kwargs: Any) -> Any:
            if self.is_away:
                self.refused += 1
                raise StoreUnavailableError("it is away")
            return await method(*args, **kwargs)

        return unless_away
