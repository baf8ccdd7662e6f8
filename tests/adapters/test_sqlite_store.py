"""The store on SQLite: the contract in memory and in a file, and what is its own."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from aiki.adapters.store.embedded import SqliteStore
from aiki.errors import ConfigurationError, StoreError, StoreUnavailableError
from aiki.ports.store import RunChange
from aiki.testing.contracts.store import DurableStoreContract, Reopen, StoreContract
from aiki.testing.contracts.store_parts.values import a_run, an_entry, at, created, entries, loaded


class TestSqliteStoreInMemory(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[SqliteStore]:
        store = SqliteStore()
        await store.start()
        yield store
        await store.close()


class TestSqliteStore(DurableStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = SqliteStore(tmp_path / "new folder" / "runs.db")
        await store.start()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: SqliteStore, tmp_path: Path) -> AsyncIterator[Reopen]:
        opened: list[SqliteStore] = []

        async def reopen() -> SqliteStore:
            await store.close()
            again = SqliteStore(tmp_path / "new folder" / "runs.db")
            await again.start()
            opened.append(again)
            return again

        yield reopen
        for again in opened:
            await again.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


OWNER = """
    import asyncio, sys
    from aiki.adapters.store.embedded import SqliteStore
    from aiki.ports.store import RunChange
    from aiki.testing.contracts.store_parts.values import a_run, entries

    async def main():
        store = SqliteStore(sys.argv[1])
        await store.start()
        number = 0
        while True:
            run = a_run(f"run-{number}")
            await store.commit([RunChange.between(None, run, entries(1, 3))])
            print(number, flush=True)
            number += 1

    asyncio.run(main())
"""


@pytest.fixture
def owner(file: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that owns the file, and writes to it as fast as it can."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(OWNER), str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def committed_by(owner: "subprocess.Popen[str]", *, at_least: int) -> int:
    assert owner.stdout is not None
    for line in owner.stdout:
        if int(line) >= at_least:
            return int(line)
    raise AssertionError("the other process ended")


async def test_what_another_process_owns_is_refused(file: Path, owner: "subprocess.Popen[str]") -> None:
    committed_by(owner, at_least=0)

    with pytest.raises(StoreUnavailableError, match="in use by another process"):
        await SqliteStore(file).start()


async def test_two_stores_of_one_process_do_not_share_a_file(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()

    with pytest.raises(StoreUnavailableError, match="in use"):
        await SqliteStore(file).start()

    await store.close()
    other = SqliteStore(file)
    await other.start()
    await other.close()


async def test_what_was_committed_survives_the_kill_of_its_process(file: Path, owner: "subprocess.Popen[str]") -> None:
    last = committed_by(owner, at_least=20)
    owner.kill()
    assert owner.stdout is not None
    last = max([last, *[int(line) for line in owner.stdout if line.endswith("\n")]])

    store = SqliteStore(file)
    await store.start()
    run_ids = [f"run-{number}" for number in range(last + 1)]
    there = await store.load(run_ids)
    assert set(run_ids) <= set(there)
    assert {run.last_seq for run in there.values()} == {3}
    await store.close()


async def test_each_store_in_memory_is_its_own() -> None:
    one, other = SqliteStore(), SqliteStore()
    await one.start()
    await other.start()

    run = await created(one)

    assert await other.load([run.run_id]) == {}
    await one.close()
    await other.close()


async def test_a_change_is_kept_whole_or_not_at_all(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()
    run = await created(store, journal=1)

    stale = RunChange.between(None, a_run(run.run_id, incarnation=run.incarnation, holder="x"), entries(1, 4))

    assert set(await store.commit([stale])) == {run.run_id}
    assert (await loaded(store, run.run_id)).last_seq == 1
    await store.close()


def test_a_database_of_another_program_is_left_alone(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE things (name TEXT)")
        other.commit()
    before = file.read_bytes()

    with pytest.raises(ConfigurationError, match="of another program"):
        asyncio.run(SqliteStore(file).start())

    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    file.write_text("Dear diary, " * 500)

    with pytest.raises(ConfigurationError, match="is no store"):
        asyncio.run(SqliteStore(file).start())


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await SqliteStore(tmp_path).start()


def test_a_file_in_a_place_that_cannot_be_is_refused(file: Path) -> None:
    file.write_text("")

    with pytest.raises(ConfigurationError, match="cannot be opened"):
        asyncio.run(SqliteStore(file / "runs.db").start())


async def test_a_file_of_a_newer_aiki_is_refused(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()
    await store.close()
    with closing(sqlite3.connect(file)) as newer:
        newer.execute("PRAGMA user_version = 99")

    with pytest.raises(ConfigurationError, match="schema version 99"):
        await SqliteStore(file).start()


async def test_a_file_of_an_older_aiki_is_brought_up_to_date_with_all_that_is_in_it(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()
    run = await created(store, journal=2)
    await store.close()
    with closing(sqlite3.connect(file)) as older:
        older.executescript("DROP INDEX dead_letters_parked; PRAGMA user_version = 1")

    await store.start()
    assert await loaded(store, run.run_id) == run
    await store.close()
    with closing(sqlite3.connect(file)) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone() == (2,)
        plan = upgraded.execute("EXPLAIN QUERY PLAN SELECT count(*) FROM dead_letters WHERE state = 'parked'")
        assert "dead_letters_parked" in str(plan.fetchall())


async def test_a_full_disk_is_told_and_what_was_there_stays(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()
    run = await created(store)
    await store._database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1"))

    with pytest.raises(StoreUnavailableError, match="full"):
        await store.commit([RunChange.between(None, a_run(), entries(1, 500))])

    assert await loaded(store, run.run_id) == run
    await store._database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    await created(store, journal=500)
    await store.close()


async def test_a_commit_that_was_cancelled_may_be_given_again(file: Path) -> None:
    store = SqliteStore(file)
    await store.start()
    change = RunChange.between(None, a_run(), (an_entry(1),))
    task = asyncio.ensure_future(store.commit([change]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not await store.commit([change])
    assert (await loaded(store, change.after.run_id)).last_seq == 1
    await store.close()


async def test_partitions_are_decided_before_they_are_asked_about() -> None:
    store = SqliteStore()
    await store.start()

    with pytest.raises(StoreError, match="partitions"):
        await store.due([0], before=at(1), limit=1)
    await store.close()
