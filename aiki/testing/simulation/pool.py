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


# What a process keeps of worlds that are over is next to nothing; should that change, it does not add up for ever.
BLOCKS_PER_PROCESS = 100


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
    crew = _Crew()
    try:
        yield from crew.share_out(iter(blocks), workers)
    finally:
        crew.dismiss_all()


def _warm_up() -> None:
    """Import and build what every simulation needs, and have no garbage collection look at it ever again.

    Each simulation ends with one, which would otherwise take as long as the simulation itself.
    """
    simulate(0)
    gc.collect()
    gc.freeze()


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


class _Crew:
    """The processes, each at the other end of a pipe."""

    def __init__(self) -> None:
        self._processes: dict[Connection, ForkProcess] = {}
        self._blocks: dict[Connection, int] = {}
        """How many blocks each was given."""

    def share_out(self, blocks: Iterator[range], workers: int) -> Iterator[tuple[range, Tally]]:
        """Give *blocks* to so many processes, and give what came of them."""
        busy: dict[Connection, range] = {}
        for _, block in zip(range(workers), blocks, strict=False):
            busy[self._give(self._hire(), block)] = block
        while busy:
            heard = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in heard]:
                block = busy.pop(pipe)
                try:
                    tally: Tally = pipe.recv()
                except EOFError:
                    raise WorkerDiedError(block) from None
                following = next(blocks, None)
                if following is not None:
                    busy[self._give(self._rested(pipe), following)] = following
                yield block, tally

    def dismiss_all(self) -> None:
        """End all of them."""
        for pipe in list(self._processes):
            self._dismiss(pipe)

    def _give(self, pipe: Connection, block: range) -> Connection:
        pipe.send(block)
        self._blocks[pipe] += 1
        return pipe

    def _rested(self, pipe: Connection) -> Connection:
        """Give a process that has not done too much yet: this one, or another in its place."""
        if self._blocks[pipe] < BLOCKS_PER_PROCESS:
            return pipe
        self._dismiss(pipe)
        return self._hire()

    def _hire(self) -> Connection:
        context = get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, [*self._processes, here]), daemon=True)
        process.start()
        there.close()
        self._processes[here], self._blocks[here] = process, 0
        return here

    def _dismiss(self, pipe: Connection) -> None:
        pipe.close()
        process = self._processes.pop(pipe)
        process.terminate()
        process.join()
