"""What the watch of a simulation takes for granted when it judges."""

from dataclasses import replace

from aiki.engine.commands import ExecuteRun
from aiki.engine.dispatching import execute_run
from aiki.testing.builders import T0, running
from aiki.testing.simulation.invariants import followed
from aiki.testing.simulation.world import Order


def an_order() -> ExecuteRun:
    return execute_run(replace(running(), base_seq=1), now=T0, recovering=False)


def arrived(order: ExecuteRun, *, at: float) -> Order:
    return Order(order.pair, order.base_seq, order.incarnation, at)


def test_a_worker_follows_what_it_holds_until_it_has_looked_at_what_arrived() -> None:
    earlier = an_order()
    later = replace(earlier, pair=replace(earlier.pair, epoch=earlier.pair.epoch + 1), base_seq=3)

    at_first, in_the_end = followed(arrived(later, at=9.0), earlier), followed(arrived(later, at=9.0), later)

    assert at_first == replace(arrived(earlier, at=0.0), at=9.0)  # It may know since then that it lost its run.
    assert in_the_end == arrived(later, at=9.0)


def test_a_worker_that_holds_nothing_any_more_followed_what_arrived_last() -> None:
    order = arrived(an_order(), at=9.0)

    assert followed(order, None) == order
    assert followed(None, None) is None
