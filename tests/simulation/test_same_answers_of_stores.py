"""The simulated store answers as the others do, whatever is done to it.

`AIKI_COMPARISONS=50` compares so many scripts, where the suite compares one or two.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any
from uuid import uuid4

import pymongo
import pytest

from aiki.adapters.store.embedded import SqliteStore
from aiki.adapters.store.mongodb import MongoStore
from aiki.engine.changing import replace
from aiki.engine.queries import RunFilter
from aiki.engine.state import Pair, RunState
from aiki.engine.status import RunStatus
from aiki.ports.store import Presence, RunChange, Store
from aiki.testing.contracts.store_parts.values import PARTITIONS, a_letter, a_run, an_entry, at
from aiki.testing.servers import Mongo
from aiki.testing.simulation.store import InlineStore

SCRIPTS = int(os.environ.get("AIKI_COMPARISONS", "1"))
STEPS = 150

# A run of a child, of one that is due, of one that sleeps: what the lists tell apart.
STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.SLEEPING, RunStatus.COMPLETED, RunStatus.FAILED)
LETTERS = ("letter-1", "letter-2", "letter-3")
PLACES = range(PARTITIONS)


class Asker:
    """Does to a store what a seed says. What it believes of runs is what that store has told it.

    *torn*: commits that learn something may have gaps, or be stale. A store without transactions keeps part
    of these, and SQLite has one.
    """

    def __init__(self, store: Store, seed: int, *, torn: bool) -> None:
        self._store = store
        self._random = Random(seed)
        self._torn = torn
        self._ids = [f"run-{number}" for number in range(5)]
        self._past: dict[str, RunState] = {}
        self._present: dict[str, RunState] = {}
        self._last: list[RunChange] = []
        self._made = 0

    async def play(self) -> list[str]:
        """Tell what was done and what came of it, one line for each step."""
        deeds: list[Callable[[], Awaitable[object]]] = [
            *[self._commit] * 10,
            *[self._commit_again] * 2,
            *[self._page] * 2,
            self._read_journals,
            self._list_due,
            self._expire,
            self._park,
            self._handle_letter,
            self._list_letters,
            self._announce,
        ]
        answers = []
        for _ in range(STEPS):
            deed = self._random.choice(deeds)
            answers.append(f"{deed.__name__}: {await deed()}")
            there = dict(sorted((await self._store.load(self._ids)).items()))
            answers.append(f"there: {there}")
            self._past, self._present = self._present, there
        return answers

    # -- what is written -------------------------------------------------------------------------

    async def _commit(self) -> object:
        """Commit for some runs at once; some of it by somebody who believes what was true one step ago."""
        some = self._random.sample(self._ids, self._random.randint(1, 3))
        self._last = [change for run_id in some if (change := self._change_of(run_id)) is not None]
        return self._last, sorted(await self._store.commit(self._last))

    async def _commit_again(self) -> object:
        again = [change for change in self._last if self._torn or not change.journal]
        return sorted(await self._store.commit(again))

    def _change_of(self, run_id: str) -> RunChange | None:
        believed = (self._past if self._random.random() < 0.3 else self._present).get(run_id)
        if believed is None or self._random.random() < 0.1:
            return self._new(run_id)
        changed = self._changed(believed)
        is_certain = self._torn or believed is self._present.get(run_id)
        if changed.pair != believed.pair or not is_certain or self._random.random() < 0.3:
            return RunChange.between(believed, changed)
        return self._with_entries(believed, changed)

    def _new(self, run_id: str) -> RunChange:
        self._made += 1
        random = self._random
        run = a_run(
            run_id,
            incarnation=f"incarnation-{self._made}",
            workflow=random.choice(("greet", "part")),
            tags=tuple(random.sample(("red", "blue"), random.randint(0, 2))),
            created_at=at(self._made),
        )
        return RunChange.between(None, run)

    def _changed(self, run: RunState) -> RunState:
        random = self._random
        match random.randrange(4):
            case 0:
                pair = Pair(run.pair.epoch + 1, f"dispatch-{run.pair.epoch + 1}")
                return replace(run, pair=pair, base_seq=run.last_seq)
            case 1:
                return replace(run, holder=random.choice((None, "worker-1", "worker-2")))
            case 2:
                status = random.choice(STATUSES)
                return replace(run, status=status, expires_at=at(random.randint(0, 100)) if status.is_final else None)
            case _:
                return replace(run, wake_at=random.choice((None, at(random.randint(0, 50)))))

    def _with_entries(self, believed: RunState, changed: RunState) -> RunChange:
        """Say what was learnt; sometimes what is there already, and now and then what contradicts it."""
        random = self._random
        first = max(1, believed.last_seq + random.choice((1, 1, 1, 0, -1) if self._torn else (1,)))
        payload = "null" if not self._torn or random.random() < 0.9 else '"contradiction"'
        seqs = list(range(first, first + random.randint(1, 4)))
        kept = [seq for seq in seqs if not self._torn or random.random() < 0.85]
        journal = tuple(an_entry(seq, epoch=believed.pair.epoch, payload=payload) for seq in kept)
        return RunChange.between(believed, replace(changed, last_seq=max(seqs[-1], believed.last_seq)), journal)

    async def _expire(self) -> object:
        return await self._store.expire(now=at(self._random.randint(0, 100)), limit=self._random.choice((1, 10)))

    # -- what is read ----------------------------------------------------------------------------

    async def _read_journals(self) -> object:
        journals = await self._store.journals(list(self._present.values()))
        pages = [
            await self._store.journal(run, after_seq=self._random.randint(0, 3), limit=self._random.choice((None, 2)))
            for run in self._present.values()
        ]
        return sorted((name, list(entries)) for name, entries in journals.items()), [list(page) for page in pages]

    async def _list_due(self) -> object:
        random = self._random
        partitions = random.sample(PLACES, random.randint(1, PARTITIONS))
        due = await self._store.due(partitions, before=at(random.randint(0, 60)), limit=random.choice((1, 10)))
        after = random.choice((None, *self._ids))
        unfinished = await self._store.unfinished(partitions, after=after, limit=random.choice((1, 10)))
        # Those that are due together come in no order that anybody has promised.
        return sorted(map(_listed, due)), list(map(_listed, unfinished))

    async def _page(self) -> object:
        random = self._random
        wanted = RunFilter(
            workflow=random.choice((None, "greet")),
            statuses=tuple(random.sample(STATUSES, random.randint(0, 2))),
            tag=random.choice((None, "red")),
            created_after=random.choice((None, at(2))),
        )
        limit, cursor, pages = random.choice((1, 2, 10)), None, []
        while True:
            page = await self._store.find(wanted, limit=limit, cursor=cursor)
            pages.append([_listed(run) for run in page.runs])
            cursor = page.cursor
            if cursor is None:
                counts = await self._store.count()
                return (
                    wanted,
                    pages,
                    sorted((name, sorted(by.items())) for name, by in counts.items() if any(by.values())),
                )

    # -- dead letters and presence ---------------------------------------------------------------

    async def _park(self) -> object:
        letters = [
            a_letter(self._random.choice(LETTERS), seconds=self._random.randint(0, 9))
            for _ in range(self._random.randint(1, 2))
        ]
        await self._store.add_dead_letters(letters)
        return letters

    async def _handle_letter(self) -> object:
        name, moment = self._random.choice((*LETTERS, "none")), at(self._random.randint(10, 20))
        handled = await self._store.handle_dead_letter(name, self._random.choice(("redriven", "discarded")), at=moment)
        return handled, await self._store.dead_letter(name)

    async def _list_letters(self) -> object:
        include_done, cursor, pages = self._random.random() < 0.5, None, []
        while True:
            page = await self._store.dead_letters(limit=2, cursor=cursor, include_done=include_done)
            pages.append(sorted(map(str, page.letters)))
            cursor = page.cursor
            if cursor is None:
                return pages, await self._store.count_dead_letters(limit=self._random.choice((1, 10)))

    async def _announce(self) -> object:
        random = self._random
        presence = Presence(
            id=f"process-{random.randint(1, 3)}",
            kind=random.choice(("orchestrator", "worker")),
            facts={"partitions": [random.randint(0, 7)]},
            # Far from now: whether one is over is asked of the clock.
            expires_at=at(random.choice((-1e8, 1e9))),
        )
        await self._store.announce(presence)
        return presence, [
            sorted(map(str, await self._store.present(kind, now=at(0)))) for kind in ("orchestrator", "worker")
        ]


def _listed(run: RunState) -> str:
    """Say what a list tells of a run."""
    return str(replace(run, last_seq=0))


async def answers_of(store: Store, seed: int, *, torn: bool) -> list[str]:
    """Do to an empty *store* what *seed* says, and tell what it answered."""
    await store.partitions(PARTITIONS)
    return await Asker(store, seed, torn=torn).play()


async def simulated_answers(seed: int, *, torn: bool) -> list[str]:
    """Tell what the store of the simulation answers."""
    store = InlineStore()
    await store.start()
    try:
        return await answers_of(store, seed, torn=torn)
    finally:
        await store.close()


def assert_same(answers: list[str], expected: list[str]) -> None:
    """Show the first step that was answered otherwise, and the one before."""
    for number, (one, other) in enumerate(zip(answers, expected, strict=True)):
        assert one == other, f"answer {number}, after {expected[number - 1]}"


@pytest.mark.parametrize("seed", range(2 * SCRIPTS))
async def test_sqlite_answers_as_the_simulated_store(seed: int) -> None:
    store = SqliteStore()
    await store.start()
    try:
        answers = await answers_of(store, seed, torn=False)
    finally:
        await store.close()

    assert_same(answers, await simulated_answers(seed, torn=False))


@pytest.fixture(scope="module")
def database(mongo: Mongo) -> Iterator["pymongo.database.Database[Any]"]:
    """A database for all scripts: to make its indexes takes longer than a script."""
    name = f"test_{uuid4().hex[:12]}"
    with pymongo.MongoClient[Any](mongo.url_of(name)) as client:
        yield client[name]
    mongo.drop_database(name)


@pytest.mark.parametrize("seed", range(100, 100 + 2 * SCRIPTS))
async def test_mongodb_answers_as_the_simulated_store(
    seed: int, mongo: Mongo, database: "pymongo.database.Database[Any]"
) -> None:
    for collection in database.list_collection_names():
        database[collection].delete_many({})
    store = MongoStore(mongo.url_of(database.name))
    await store.start()
    try:
        answers = await answers_of(store, seed, torn=True)
    finally:
        await store.close()

    assert_same(answers, await simulated_answers(seed, torn=True))
