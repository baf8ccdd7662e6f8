"""How the limit of a subscription is dealt out among its queues."""

from hypothesis import given
from hypothesis import strategies as st

from aiki.adapters.broker.rabbitmq.sharing import Cancel, Consume, Sharing


class Broker:
    """A broker that hands out what its consumers may hold."""

    def __init__(self, sharing: Sharing, waiting: dict[str, int]) -> None:
        self.sharing = sharing
        self.waiting = waiting
        self.room: dict[str, int] = {}
        self.held: list[str] = []
        self.taken: dict[str, int] = dict.fromkeys(waiting, 0)

    def settle(self) -> None:
        """Follow every move, and deliver what may be delivered, until neither is left."""
        for _ in range(1000):
            move = self.sharing.next_move()
            if isinstance(move, Consume):
                self.sharing.consumed(move)
                self.room[move.tag] = move.credit
            elif isinstance(move, Cancel):
                del self.room[move.tag]
                self.sharing.cancelled(move.tag)
            elif not self.deliver():
                return
        raise AssertionError("the moves never end")

    def deliver(self) -> bool:
        for tag, room in self.room.items():
            queue = self.sharing.queue_of(tag)
            if room > 0 and self.waiting[queue] > 0:
                self.room[tag] -= 1
                self.waiting[queue] -= 1
                self.taken[queue] += 1
                self.held.append(tag)
                self.sharing.delivered(tag)
                return True
        return False

    def acknowledge(self, index: int) -> None:
        tag = self.held.pop(index % len(self.held))
        if tag in self.room:
            self.room[tag] += 1
        self.sharing.acknowledged(tag)

    def turn(self) -> None:
        if (turn := self.sharing.next_turn()) is not None:
            del self.room[turn.tag]
            self.sharing.cancelled(turn.tag)


def test_idle_queues_share_the_limit_evenly() -> None:
    broker = Broker(Sharing(["a", "b", "c"], 10), {"a": 0, "b": 0, "c": 0})

    broker.settle()

    assert sorted(broker.room.values()) == [3, 3, 4]


def test_a_busy_queue_gets_all_but_one_place_of_each_idle_one() -> None:
    broker = Broker(Sharing(["a", "b", "c"], 30), {"a": 100, "b": 0, "c": 0})

    broker.settle()

    assert broker.taken == {"a": 28, "b": 0, "c": 0}


def test_what_the_busy_queue_gives_back_goes_to_the_next_busy_one() -> None:
    broker = Broker(Sharing(["a", "b"], 20), {"a": 19, "b": 0})
    broker.settle()
    assert broker.taken["a"] == 19

    while broker.held:
        broker.acknowledge(0)
    broker.waiting["b"] = 30
    broker.settle()

    assert broker.taken["b"] == 19


def test_queues_that_have_no_place_get_one_in_turn() -> None:
    broker = Broker(Sharing(["a", "b", "c"], 1), {"a": 9, "b": 9, "c": 9})

    for _ in range(9):
        broker.settle()
        broker.turn()
        broker.acknowledge(0)

    assert broker.taken == {"a": 3, "b": 3, "c": 3}


@given(
    limit=st.integers(1, 12),
    waiting=st.dictionaries(st.sampled_from("abcde"), st.integers(0, 30), min_size=1),
    acts=st.lists(st.tuples(st.sampled_from(["acknowledge", "turn"]), st.integers(0, 99)), max_size=60),
)
def test_the_limit_is_never_exceeded_and_everything_is_delivered_in_the_end(
    limit: int, waiting: dict[str, int], acts: list[tuple[str, int]]
) -> None:
    total = sum(waiting.values())
    broker = Broker(Sharing(list(waiting), limit), waiting)

    for act, index in acts:
        broker.settle()
        assert len(broker.held) + sum(broker.room.values()) <= limit
        if act == "turn":
            broker.turn()
        elif broker.held:
            broker.acknowledge(index)
    for _ in range((total + 1) * len(waiting)):
        broker.settle()
        broker.turn()
        while broker.held:
            broker.acknowledge(0)

    assert sum(broker.taken.values()) == total
