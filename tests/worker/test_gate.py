"""The gate: many side by side, or one alone."""

import asyncio

from aiki.worker.gate import Gate


class Visitor:
    """Enters a gate and stays until told to go."""

    def __init__(self, gate: Gate, *, alone: bool = False) -> None:
        self.is_inside = False
        self._go = asyncio.Event()
        self._visit = asyncio.create_task(self._enter(gate, alone=alone))

    async def _enter(self, gate: Gate, *, alone: bool) -> None:
        await gate.enter(alone=alone)
        self.is_inside = True
        try:
            await self._go.wait()
        finally:
            gate.leave(alone=alone)
        self.is_inside = False

    async def go(self) -> None:
        self._go.set()
        await settle()

    async def give_up(self) -> None:
        self._visit.cancel()
        await asyncio.gather(self._visit, return_exceptions=True)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_share_are_inside_together() -> None:
    gate = Gate()

    visitors = [Visitor(gate) for _ in range(3)]
    await settle()

    assert all(visitor.is_inside for visitor in visitors)
    for visitor in visitors:
        await visitor.go()


async def test_who_is_alone_waits_for_those_inside_and_is_not_overtaken() -> None:
    gate = Gate()
    first = Visitor(gate)
    await settle()
    alone, later = Visitor(gate, alone=True), Visitor(gate)
    await settle()
    assert (first.is_inside, alone.is_inside, later.is_inside) == (True, False, False)

    await first.go()
    assert (alone.is_inside, later.is_inside) == (True, False)

    await alone.go()
    assert later.is_inside
    await later.go()


async def test_two_who_want_to_be_alone_follow_each_other() -> None:
    gate = Gate()
    one, two = Visitor(gate, alone=True), Visitor(gate, alone=True)
    await settle()
    assert (one.is_inside, two.is_inside) == (True, False)

    await one.go()
    assert two.is_inside
    await two.go()


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    gate = Gate()
    first = Visitor(gate)
    await settle()
    alone, later = Visitor(gate, alone=True), Visitor(gate)
    await settle()

    await alone.give_up()

    assert later.is_inside
    await first.go()
    await later.go()
    last = Visitor(gate, alone=True)
    await settle()
    assert last.is_inside
    await last.go()


async def test_who_is_let_in_and_cancelled_in_the_same_moment_leaves_again() -> None:
    gate = Gate()
    first = Visitor(gate, alone=True)
    await settle()
    second = Visitor(gate, alone=True)
    await settle()

    first._go.set()
    while first.is_inside:  # noqa: ASYNC110 - one turn of the loop later would be too late
        await asyncio.sleep(0)
    assert not second.is_inside
    await second.give_up()

    third = Visitor(gate, alone=True)
    await settle()
    assert third.is_inside
    await third.go()
