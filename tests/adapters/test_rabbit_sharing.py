"""How the limit of a subscription is dealt out among its queues."""

from hypothesis import given
from hypothesis import strategies as st

from aiki.adapters.broker.rabbitmq.sharing import Cancel, Consume, Sharing


class Broker:
    """A broker that hands out what its consumers may hold: one message each."""

    def __init__(self, sharing: Sharing, waiting: dict[str, int]) -> None:
        self.sharing = sharing
        self.waiting = waiting
        self.idle: list[str] = []
        self.held: list[str] = []
        self.taken: dict[str, int] = dict.fromkeys(waiting, 0)

    @property
    def places(self) -> int:
        return len(self.idle) + len(self.held)

    def settle(self, *, crossing: bool = False) -> None:
        """Follow every move, and deliver what may be delivered, until neither is left."""
        for _ in range(1000):
            move = self.sharing.next_move()
            if isinstance(move, Consume):
                self.sharing.consumed(move)
                self.idle.append(move.tag)
            elif isinstance(move, Cancel):
                self.cancel(move.tag, crossing=crossing)
            elif not self.deliver():
                return
        raise AssertionError("the moves never end")

    def cancel(self, tag: str, *, crossing: bool) -> None:
        assert tag not in self.held
        self.sharing.called_off(tag)
        if crossing and self.waiting[self.sharing.queue_of(tag)]:
            assert not self.sharing.delivered(tag)  # It is given back, and written so before or after the answer.
            self.sharing.acknowledged(tag)
        self.idle.remove(tag)
        self.sharing.cancelled(tag)

    def deliver(self) -> bool:
        for tag in self.idle:
            queue = self.sharing.queue_of(tag)
            if self.waiting[queue] > 0:
                self.idle.remove(tag)
                self.waiting[queue] -= 1
                self.taken[queue] += 1
                self.held.append(tag)
                assert self.sharing.delivered(tag)
                return True
        return False

    def acknowledge(self, index: int) -> None:
        tag = self.held.pop(index % len(self.held))
        if self.sharing.is_leaving(tag):
            self.sharing.cancelled(tag)
        else:
            self.idle.append(tag)
        self.sharing.acknowledged(tag)


def test_every_queue_has_a_place_for_what_may_come_and_the_others_are_free() -> None:
    broker = Broker(Sharing(["a", "b", "c"], 10), {"a": 0, "b": 0, "c": 0})

    broker.settle()

    assert broker.places == 3


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


def test_what_one_run_that_goes_on_leaves_free_goes_to_another_queue() -> None:
    broker = Broker(Sharing(["a", "b"], 20), {"a": 19, "b": 0})
    broker.settle()

    while len(broker.held) > 1:
        broker.acknowledge(0)
    broker.waiting["b"] = 30
    broker.settle()

    assert broker.taken["b"] == 18  # One is held, and one waits for what may come.


def test_queues_that_have_no_place_get_one_in_turn() -> None:
    broker = Broker(Sharing(["a", "b", "c"], 1), {"a": 9, "b": 9, "c": 9})

    for _ in range(9):
        broker.settle()
        broker.sharing.end_turn()
        broker.acknowledge(0)

    assert broker.taken == {"a": 3, "b": 3, "c": 3}


def test_at_the_end_idle_places_go_at_once_and_the_others_with_what_they_hold() -> None:
    broker = Broker(Sharing(["a", "b"], 4), {"a": 2, "b": 0})
    broker.settle()

    broker.sharing.end()
    broker.settle()

    assert (broker.idle, len(broker.held)) == ([], 2)
    broker.waiting["a"] = 5
    while broker.held:
        broker.acknowledge(0)
        broker.settle()
    assert broker.taken["a"] == 2


def test_a_queue_gets_another_place_once_when_nothing_came_to_those_that_it_has() -> None:
    broker = Broker(Sharing(["a", "b"], 4), {"a": 0, "b": 0})
    broker.settle()
    first = list(broker.idle)

    assert not broker.sharing.doubt_idle()
    broker.waiting["b"] = 1
    broker.settle()
    broker.acknowledge(0)
    before = set(broker.idle)
    assert broker.sharing.doubt_idle()
    broker.settle()

    (new,) = set(broker.idle) - before
    assert broker.sharing.queue_of(new) == "a"
    assert set(first) <= set(broker.idle)
    broker.sharing.doubt_idle()
    broker.settle()
    at_rest = list(broker.idle)
    for _ in range(3):
        assert not broker.sharing.doubt_idle()
        broker.settle()
    assert broker.idle == at_rest


def test_places_that_are_doubted_give_way_when_there_is_no_room() -> None:
    broker = Broker(Sharing(["a", "b"], 3), {"a": 0, "b": 1})
    broker.settle()
    dead = next(tag for tag in broker.idle if broker.sharing.queue_of(tag) == "a")
    broker.waiting["b"] = 1
    broker.settle()
    assert broker.places == 3

    for _ in range(2):
        broker.sharing.doubt_idle()
    broker.settle()

    assert dead not in broker.idle
    assert [broker.sharing.queue_of(tag) for tag in broker.idle] == ["a"]


@given(
    limit=st.integers(1, 12),
    waiting=st.dictionaries(st.sampled_from("abcde"), st.integers(0, 30), min_size=1),
    acts=st.lists(st.tuples(st.sampled_from(["acknowledge", "turn", "doubt"]), st.integers(0, 99)), max_size=60),
    crossing=st.booleans(),
)
def test_the_limit_is_never_exceeded_and_everything_is_delivered_in_the_end(
    limit: int, waiting: dict[str, int], acts: list[tuple[str, int]], crossing: bool
) -> None:
    total = sum(waiting.values())
    broker = Broker(Sharing(list(waiting), limit), waiting)

    for act, index in acts:
        broker.settle(crossing=crossing)
        assert broker.places <= limit
        if act == "turn":
            broker.sharing.end_turn()
        elif act == "doubt":
            broker.sharing.doubt_idle()
        elif broker.held:
            broker.acknowledge(index)
    for _ in range((total + 1) * len(waiting)):
        broker.settle(crossing=crossing)
        broker.sharing.end_turn()
        while broker.held:
            broker.acknowledge(0)

    assert sum(broker.taken.values()) == total
