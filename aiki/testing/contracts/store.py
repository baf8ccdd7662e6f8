"""The contract of ``Store``: what every adapter keeps, as tests.

An adapter's tests inherit ``StoreContract`` and bring one fixture, ``store``: a started store
of their kind with nothing in it, closed by the fixture afterwards. Where what is kept outlives
the object that keeps it, they inherit ``DurableStoreContract`` and bring ``reopen`` too: a
coroutine function that closes the store and opens another one on what it left.

The tests are coroutines; they need pytest-asyncio in its automatic mode.
"""

from collections.abc import Awaitable, Callable

import pytest

from aiki.errors import StoreUnavailableError
from aiki.ports.store import Presence, RunChange, Store
from aiki.testing.contracts.store_parts.commits import CommitsContract
from aiki.testing.contracts.store_parts.expiry import ExpiryContract
from aiki.testing.contracts.store_parts.journals import JournalsContract
from aiki.testing.contracts.store_parts.letters import LettersContract, PresenceContract
from aiki.testing.contracts.store_parts.reading import ReadingContract
from aiki.testing.contracts.store_parts.sequences import SequencesContract
from aiki.testing.contracts.store_parts.values import (
    PARTITIONS,
    a_letter,
    a_run,
    an_entry,
    appended,
    at,
    created,
    entries,
)

__all__ = ["DurableStoreContract", "Reopen", "StoreContract"]

Reopen = Callable[[], Awaitable[Store]]


class StoreContract(
    CommitsContract,
    JournalsContract,
    ReadingContract,
    ExpiryContract,
    LettersContract,
    PresenceContract,
    SequencesContract,
):
    """Everything that ``aiki.ports.store`` promises while a store is open."""

    @pytest.fixture(autouse=True)
    async def _decided(self, store: Store) -> None:
        await store.partitions(PARTITIONS)

    async def test_to_start_again_changes_nothing(self, store: Store) -> None:
        run = await created(store)

        await store.start()

        assert await store.load([run.run_id]) == {run.run_id: run}

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.close()
        await store.close()

        with pytest.raises(StoreUnavailableError, match=r"start\(\)"):
            await store.load(["run-1"])
        with pytest.raises(StoreUnavailableError, match=r"start\(\)"):
            await store.commit([RunChange.between(None, a_run())])


class DurableStoreContract(StoreContract):
    """And what it promises when it is opened again."""

    async def test_what_was_kept_is_there_when_the_store_is_opened_again(self, store: Store, reopen: Reopen) -> None:
        run = await created(store, tags=("vip",), wake_at=at(5), journal=2)
        run = await appended(store, run, an_entry(3))
        await store.add_dead_letters([a_letter("one")])
        here = Presence("o-1", "orchestrator", {"host": "a"}, at(30))
        await store.announce(here)

        again = await reopen()

        assert await again.load([run.run_id]) == {run.run_id: run}
        assert await again.journal(run) == list(entries(1, 3))
        assert await again.due(range(PARTITIONS), before=at(6), limit=5) == [
            (await again.unfinished(range(PARTITIONS), after=None, limit=5))[0]
        ]
        assert await again.dead_letter("one") is not None
        assert await again.present("orchestrator", now=at(1)) == [here]

    async def test_the_number_of_partitions_is_decided_for_life(self, store: Store, reopen: Reopen) -> None:
        again = await reopen()

        assert await again.partitions(PARTITIONS * 2) == PARTITIONS

    async def test_a_commit_goes_on_where_the_one_before_ended(self, store: Store, reopen: Reopen) -> None:
        run = await created(store, journal=1)

        again = await reopen()

        assert set(await again.commit([RunChange.between(None, a_run(run.run_id, incarnation="other"))])) == {
            run.run_id
        }
        run = await appended(again, run, an_entry(2))
        assert await again.journal(run) == list(entries(1, 2))
