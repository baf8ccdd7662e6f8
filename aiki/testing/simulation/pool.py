"""Simulations on all cores: processes that are given blocks of seeds, one after the other.

They are forked from one that has simulated already, so none has to import or to build
anything. None outlives the one that gives out the blocks, however that ends: its end of
the pipe is closed then, and theirs says so.
"""

import gc
import signal
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from aiki.testing.simulation.simulation import simulate
from aiki.testing.simulation.tally import Tally, tally_of

__all__ = ["WorkerDiedError", "in_blocks", "tallies"]


class WorkerDiedError(Exception):
    """A process that simulated ended, and did not say what came of it."""

    def __init__(self, block: range) -> None:
        super().__init__(f"a process died while it simulated one of the seeds {block.start}..{block.stop}")


def in_blocks(seeds: range, size: int) -> Iterator[range]:
    """Divide *seeds* into blocks."""
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def tallies(blocks: Iterable[range], *, workers: int) -> Iterator[tuple[range, Tally]]:
    """Simulate *blocks* in so many processes; gives what came of each as soon as it is known, in no order.

    Raises:
        WorkerDiedError: one of the processes did.
    """
    _warm_up()
    if workers <= 1:
        yield from ((block, tally_of(block)) for block in blocks)
        return
    crew: dict[Connection, ForkProcess] = {}
    try:
        for _ in range(workers):
            _hire(crew)
        yield from _share_out(iter(blocks), list(crew))
    finally:
        for pipe, process in crew.items():
            pipe.close()
            process.terminate()
            process.join()


def _warm_up() -> None:
    """Import and build what every simulation needs, and have no garbage collection look at it ever again.

    Each simulation ends with one, which would otherwise take as long as the simulation itself.
    """
    simulate(0)
    gc.collect()
    gc.freeze()


def _hire(crew: dict[Connection, ForkProcess]) -> None:
    context = get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, [*crew, here]), daemon=True)
    process.start()
    there.close()
    crew[here] = process


def _work(pipe: Connection, inherited: Sequence[Connection]) -> None:
    """Simulate what is given, until nobody is there to give anything."""
    for end in inherited:
        end.close()  # As long as anybody has it open, it does not look as if the other process were gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # That is for the one who gives the blocks out.
    try:
        while True:
            pipe.send(tally_of(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return


def _share_out(blocks: Iterator[range], crew: Sequence[Connection]) -> Iterator[tuple[range, Tally]]:
    busy: dict[Connection, range] = {}

    def give(pipe: Connection) -> None:
        block = next(blocks, None)
        if block is not None:
            pipe.send(block)
            busy[pipe] = block

    for pipe in crew:
        give(pipe)
    while busy:
        heard = wait(list(busy))
        for pipe in [pipe for pipe in busy if pipe in heard]:
            block = busy.pop(pipe)
            try:
                tally: Tally = pipe.recv()
            except EOFError:
                raise WorkerDiedError(block) from None
            give(pipe)
            yield block, tally
