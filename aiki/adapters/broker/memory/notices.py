"""Notices: each to the client that it is addressed to and to whoever watches its run, once."""

from collections import defaultdict
from collections.abc import Callable

from aiki.adapters.broker.memory.queues import MemoryQueue, MemorySubscription
from aiki.codec.messages import decode_notice
from aiki.engine.commands import AnnounceAcceptance, AnnounceOutcome, Notice
from aiki.errors import UndecodableError
from aiki.ports.broker import NoticeSubscription
from broker_topology import NOTICES

__all__ = ["MemoryNoticeSubscription", "NoticeBoard"]

_Listeners = defaultdict[str, dict[MemoryQueue[Notice], None]]


class NoticeBoard:
    """Who listens to what."""

    def __init__(self, park: Callable[[str, bytes, UndecodableError], None]) -> None:
        self._park = park
        # Dictionaries for sets: who listens is told in the order of having come.
        self._clients: _Listeners = defaultdict(dict)
        self._watchers: _Listeners = defaultdict(dict)

    @property
    def listeners(self) -> int:
        """How many clients and watched runs somebody listens for."""
        return len(self._clients) + len(self._watchers)

    def queue_for(self, client: str) -> MemoryQueue[Notice]:
        """Make the queue of a subscription, and address it."""
        queue = MemoryQueue(f"{NOTICES}.{client}", decode=decode_notice, park=self._park)
        self._clients[client][queue] = None
        return queue

    def watch(self, run_id: str, queue: MemoryQueue[Notice]) -> None:
        """Let *queue* have the notices of *run_id*."""
        self._watchers[run_id][queue] = None

    def unwatch(self, run_id: str, queue: MemoryQueue[Notice]) -> None:
        """Let *queue* no longer have them."""
        _discard(self._watchers, run_id, queue)

    def leave(self, client: str, queue: MemoryQueue[Notice]) -> None:
        """Remove the address of *queue*."""
        _discard(self._clients, client, queue)

    def announce(self, notice: Notice) -> None:
        """Deliver *notice* to all who may hear it, if any."""
        queues: dict[MemoryQueue[Notice], None] = {}
        if isinstance(notice, AnnounceAcceptance | AnnounceOutcome) and notice.client is not None:
            queues |= self._clients.get(notice.client, {})
        if not isinstance(notice, AnnounceAcceptance):
            queues |= self._watchers.get(notice.run_id, {})
        for queue in queues:
            queue.put(notice)


def _discard(index: _Listeners, key: str, queue: MemoryQueue[Notice]) -> None:
    """Remove *queue*, and the key that has none any more: clients come and go for as long as the process lives."""
    queues = index.get(key)
    if queues is not None:
        queues.pop(queue, None)
        if not queues:
            del index[key]


class MemoryNoticeSubscription(MemorySubscription[Notice], NoticeSubscription):
    """The notices for one client."""

    def __init__(
        self, board: NoticeBoard, client: str, *, on_end: Callable[[MemorySubscription[Notice]], None]
    ) -> None:
        self._board = board
        self._client = client
        self._queue = board.queue_for(client)
        self._watched: set[str] = set()
        super().__init__([self._queue], prefetch=None, on_end=on_end)

    async def watch(self, run_id: str) -> None:
        """Hear of *run_id* from now on."""
        self.check()
        self._watched.add(run_id)
        self._board.watch(run_id, self._queue)

    async def unwatch(self, run_id: str) -> None:
        """Stop hearing of *run_id*, unless it is addressed to this client."""
        self.check()
        self._watched.discard(run_id)
        self._board.unwatch(run_id, self._queue)

    def lose(self, why: str) -> None:
        """End the subscription; what was addressed to it from now on falls on deaf ears."""
        self._board.leave(self._client, self._queue)
        for run_id in self._watched:
            self._board.unwatch(run_id, self._queue)
        self._watched.clear()
        super().lose(why)
