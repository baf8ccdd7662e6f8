"""The inbox: what arrived for a run and is not journaled yet.

Everything in it has to reach a holder in one message, so there is only so much room
for signals, and of what ended elsewhere, which cannot be refused, an order takes
along as much as fits: the rest wakes the run again as soon as it rests.
"""

from collections.abc import Iterable, Iterator

from aiki.engine.journal import InboxItem, InboxKind, Wait, WaitKind
from aiki.engine.state import RunState

__all__ = ["ENDS_BYTES_MAX", "INBOX_BYTES_MAX", "INBOX_ITEMS_MAX", "carried", "has_room_for", "wakes"]

# A message has 8 MiB, and quoting lengthens; besides these, an order holds an input and the beginning of a journal.
INBOX_ITEMS_MAX = 10_000
INBOX_BYTES_MAX = 2 * 1024 * 1024
ENDS_BYTES_MAX = 1024 * 1024

_WAIT_OF_ITEM = {InboxKind.TASK: WaitKind.TASK, InboxKind.CHILD: WaitKind.CHILD, InboxKind.SIGNAL: WaitKind.SIGNAL}


def wakes(waits: tuple[Wait, ...], item: InboxItem) -> bool:
    """Tell whether *item* is what one of *waits* waits for."""
    kind = _WAIT_OF_ITEM[item.kind]
    return any(wait.kind is kind and wait.name == item.name for wait in waits)


def has_room_for(run: RunState, item: InboxItem) -> bool:
    """Tell whether one more signal would still fit into an order beside the others."""
    signals = [other for other in run.inbox if other.kind is InboxKind.SIGNAL]
    return len(signals) < INBOX_ITEMS_MAX and sum(map(_size, (*signals, item))) <= INBOX_BYTES_MAX


def carried(items: Iterable[InboxItem], waits: tuple[Wait, ...]) -> tuple[InboxItem, ...]:
    """Choose of *items* what one message takes along: what *waits* wait for comes before what nobody asked for yet."""
    items = tuple(items)
    signals = (item for item in items if item.kind is InboxKind.SIGNAL)
    ends = sorted(
        (item for item in items if item.kind is not InboxKind.SIGNAL), key=lambda item: not wakes(waits, item)
    )
    return (*signals, *_beginning(ends))


def _beginning(ends: Iterable[InboxItem]) -> Iterator[InboxItem]:
    """Give as many as fit, and the first one in any case."""
    room = ENDS_BYTES_MAX
    for item in ends:
        is_first = room == ENDS_BYTES_MAX
        room -= _size(item)
        if room < 0 and not is_first:
            return
        yield item


def _size(item: InboxItem) -> int:
    size, failure = len((item.payload or "").encode(errors="replace")) + len(item.name), item.failure
    while failure is not None:
        size += len(failure.message) + len(failure.traceback or "")
        failure = failure.cause
    return size
