"""Arrivals: what comes for a run from outside, and the operations that wait for it."""

from collections import deque
from collections.abc import Iterable

from aiki.engine.journal import InboxItem, InboxKind
from aiki.worker.operations import ChildOperation, Operation, SignalOperation, TaskOperation

__all__ = ["Arrivals"]

Key = tuple[InboxKind, str]


class Arrivals:
    """Brings items and operations together: first come, first served, each item once."""

    def __init__(self, dead: Iterable[str]) -> None:
        """*dead* are the ids of items that the journal names already."""
        self._known = set(dead)
        self._items: dict[Key, deque[InboxItem]] = {}
        self._waiting: dict[Key, deque[Operation]] = {}

    def put(self, items: Iterable[InboxItem]) -> None:
        """Something arrived. What has arrived before counts once."""
        for item in items:
            if item.id not in self._known:
                self._known.add(item.id)
                self._items.setdefault((item.kind, item.name), deque()).append(item)

    def put_back(self, item: InboxItem) -> None:
        """Nobody wanted *item* after all: the next one to ask gets it."""
        self._items.setdefault((item.kind, item.name), deque()).appendleft(item)

    def wait(self, operation: Operation) -> None:
        """Let *operation* wait for what ends it."""
        self._waiting.setdefault(_key(operation), deque()).append(operation)

    def take(self) -> list[tuple[Operation, InboxItem]]:
        """Give every operation whose item is there. Neither is looked at again."""
        matches: list[tuple[Operation, InboxItem]] = []
        if not self._items:
            return matches
        for key in [key for key in self._items if key in self._waiting]:
            items, waiting = self._items[key], self._waiting[key]
            while items and waiting:
                operation = waiting.popleft()
                if not operation.is_over:
                    matches.append((operation, items.popleft()))
            if not items:
                del self._items[key]
            if not waiting:
                del self._waiting[key]
        return matches


def _key(operation: Operation) -> Key:
    match operation:
        case SignalOperation(name=name):
            return InboxKind.SIGNAL, name
        case ChildOperation(child_id=str(child_id)):
            return InboxKind.CHILD, child_id
        case TaskOperation(task_id=str(task_id)):
            return InboxKind.TASK, task_id
    raise AssertionError(f"{operation.id} waits for nothing that arrives")
