"""The store on MongoDB: the contract with both drivers, and what servers can do to it."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from aiki.adapters.store.mongodb import MongoStore
from aiki.engine.ids import partition_of
from aiki.engine.queries import RunFilter
from aiki.engine.status import RunStatus
from aiki.errors import ConfigurationError, StoreUnavailableError
from aiki.ports.store import Presence, RunChange
from aiki.testing.contracts.store import DurableStoreContract, Reopen
from aiki.testing.contracts.store_parts.values import (
    PARTITIONS,
    a_letter,
    a_run,
    an_entry,
    appended,
    at,
    changed,
    created,
    dispatched,
    entries,
    loaded,
)
from aiki.testing.servers import Mongo, MongoNode, MongoReplicaSet

PATIENCE = 20.0
UNAUTHORIZED = 13
OUT_OF_DISK = 14031
CURSOR_KILLED = 237


@asynccontextmanager
async def opened(client: Any, database: str | None = None, *, timeout: float = 10.0) -> AsyncIterator[MongoStore]:
    store = MongoStore(client, database, timeout=timeout)
    await store.start()
    try:
        await store.partitions(PARTITIONS)
        yield store
    finally:
        await store.close()


@pytest.fixture(autouse=True)
def cut_short_connections(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what the driver leaves when it is closed in the middle of connecting: a socket that nobody closes.

    The garbage collector does, and warns of it; without this, it would do so in the middle of some other test.
    """
    yield
    if request.cls is None:  # The tests of the contract leave their servers alone.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what somebody else brings about, and who tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.02)


@pytest.fixture(scope="class")
def shared_database(mongo: Mongo) -> Iterator["pymongo.MongoClient[Any]"]:
    """A client whose default database the tests of a class share: to make its indexes takes longer than a test."""
    name = f"test_{uuid4().hex[:12]}"
    with pymongo.MongoClient[Any](mongo.url_of(name)) as client:
        yield client
    mongo.drop_database(name)


@pytest.fixture
def empty_database(shared_database: "pymongo.MongoClient[Any]", mongo: Mongo) -> Iterator[str]:
    """The connection string of a database with nothing in it but what an earlier store has set up."""
    database = shared_database.get_default_database()
    yield mongo.url_of(database.name)
    for name in database.list_collection_names():
        database[name].delete_many({})


class TestMongoStore(DurableStoreContract):
    @pytest.fixture
    async def store(self, empty_database: str) -> AsyncIterator[MongoStore]:
        async with opened(empty_database) as store:
            yield store

    @pytest.fixture
    async def reopen(self, store: MongoStore, empty_database: str) -> AsyncIterator[Reopen]:
        again = MongoStore(empty_database)

        async def reopen() -> MongoStore:
            await store.close()
            await again.start()
            return again

        yield reopen
        await again.close()


class TestMongoStoreOnMotor(DurableStoreContract):
    @pytest.fixture
    def client(self, empty_database: str) -> Iterator["AsyncIOMotorClient[Any]"]:
        client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(empty_database)
        yield client
        client.close()

    @pytest.fixture
    async def store(self, client: "AsyncIOMotorClient[Any]") -> AsyncIterator[MongoStore]:
        async with opened(client) as store:
            yield store

    @pytest.fixture
    async def reopen(self, store: MongoStore, client: "AsyncIOMotorClient[Any]") -> AsyncIterator[Reopen]:
        again = MongoStore(client)

        async def reopen() -> MongoStore:
            await store.close()
            await again.start()
            return again

        yield reopen
        await again.close()


class StandaloneNode(MongoNode):
    """A MongoDB that is no replica set; with *guarded*, one that wants to know who is there."""

    guarded = False

    def url_of(self, database: str) -> str:
        return f"mongodb://{self.address}/{database}"

    def command(self) -> Sequence[str]:
        words = list(super().command())
        place = words.index("--replSet")
        del words[place : place + 2]
        place = words.index("--oplogSize")
        del words[place : place + 2]
        return [*words, "--auth"] if self.guarded else words

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.admin.command("hello")["isWritablePrimary"])
        except pymongo.errors.PyMongoError:
            return False


class GuardedNode(StandaloneNode):
    guarded = True

    def add_users(self) -> None:
        with self.client() as client:  # The first user may be made by anybody on the machine.
            client.admin.command("createUser", "root", pwd="secret", roles=["root"])
        with pymongo.MongoClient[Any](self.address, username="root", password="secret") as client:
            client.admin.command("createUser", "reader", pwd="secret", roles=["readAnyDatabase"])
            client.admin.command("createUser", "aiki", pwd="p@ss:word/", roles=[{"role": "readWrite", "db": "aiki"}])


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[StandaloneNode]:
    with StandaloneNode(tmp_path / "standalone") as node:
        yield node


@pytest.fixture
def replica_set(tmp_path: Path) -> Iterator[MongoReplicaSet]:
    with MongoReplicaSet(tmp_path / "members") as members:
        yield members


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedNode]:
    with GuardedNode(tmp_path / "guarded") as node:
        node.add_users()
        yield node


async def test_a_standalone_server_will_do(standalone: StandaloneNode) -> None:
    async with opened(standalone.url) as store:
        run = await created(store, journal=2)
        newer = await dispatched(store, run)
        await store.commit([RunChange(run, replace(run, last_seq=3), entries(3, 3))])
        newer = await appended(store, newer, *entries(3, 4, epoch=2))
        assert set(await store.commit([RunChange.between(run, replace(run, holder="late"))])) == {run.run_id}
        assert await loaded(store, run.run_id) == newer

        await changed(store, newer, status=RunStatus.COMPLETED, expires_at=at(1))
        assert await store.expire(now=at(2), limit=10) == 1
        assert await store.journal(newer) == []


@pytest.mark.parametrize("client", [AsyncMongoClient, AsyncIOMotorClient])
async def test_a_client_that_was_brought_stays_open(
    mongodb_url: str, mongodb_database: str, client: Callable[[str], Any]
) -> None:
    brought = client(mongodb_url)
    async with opened(brought, mongodb_database) as store:
        await created(store)

    assert await brought[mongodb_database].runs.count_documents({}) == 1
    closing = brought.close()
    if closing is not None:
        await closing


async def test_the_database_is_the_one_that_is_named(mongodb_url: str, mongodb_database: str) -> None:
    async with opened(mongodb_url) as by_url, opened(mongodb_url, mongodb_database) as by_name:
        run = await created(by_url)
        assert await loaded(by_name, run.run_id) == run


async def test_two_orchestrators_that_believe_to_own_a_run_take_turns(mongodb_url: str) -> None:
    async with opened(mongodb_url) as one, opened(mongodb_url) as other:
        run = await created(one)

        for turn in range(20):
            changes = [RunChange.between(run, replace(run, holder=f"{name}-{turn}")) for name in ("one", "other")]
            verdicts = await asyncio.gather(one.commit(changes[:1]), other.commit(changes[1:]))

            winners = [change.after for change, stale in zip(changes, verdicts, strict=True) if not stale]
            run = await loaded(one, run.run_id)
            assert winners == [run]


# What is refused, and what cannot be reached.


@pytest.mark.parametrize(
    "url",
    ["", "localhost:27017", "http://localhost", "mongodb://", "mongodb://us:er:p4ss@host", "mongodb://host:port"],
)
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="MongoDB URL") as refused:
        await MongoStore(url).start()

    assert "p4ss" not in str(refused.value)


async def test_a_server_that_is_not_there_is_told_in_time() -> None:
    with pytest.raises(StoreUnavailableError, match=r"cannot be reached|did not answer") as refused:
        await MongoStore("mongodb://user:secret@127.0.0.1:1/", timeout=0.5).start()

    assert "127.0.0.1:1" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_wrong_credentials_are_told_at_the_start(guarded: GuardedNode) -> None:
    for user in ("aiki:wrong", "nobody:secret"):
        with pytest.raises(ConfigurationError, match="Authentication failed") as refused:
            await MongoStore(f"mongodb://{user}@{guarded.address}/").start()
        assert "AIKI_MONGODB_URL" in str(refused.value)


async def test_a_user_who_may_not_write_is_told_at_the_start(guarded: GuardedNode) -> None:
    for url in (f"mongodb://reader:secret@{guarded.address}/", guarded.url_of("")):
        with pytest.raises(ConfigurationError, match="readWrite"):
            await MongoStore(url).start()

    async with opened(f"mongodb://aiki:p%40ss%3Aword%2F@{guarded.address}/") as store:
        await created(store)


async def test_a_user_who_may_write_no_more_is_told(guarded: GuardedNode) -> None:
    async with opened(f"mongodb://aiki:p%40ss%3Aword%2F@{guarded.address}/") as store:
        run = await created(store)
        with pymongo.MongoClient[Any](guarded.address, username="root", password="secret") as client:
            client.admin.command("updateUser", "aiki", roles=[{"role": "read", "db": "aiki"}])

        with pytest.raises(StoreUnavailableError, match="readWrite"):
            await store.commit([RunChange.between(run, replace(run, holder="w"), (an_entry(1),))])

        assert await loaded(store, run.run_id) == run


async def test_refused_writes_leave_things_as_they_were_and_may_be_given_again(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url) as store:
        run = await created(store)
        change = RunChange.between(run, replace(run, holder="worker-1", last_seq=2), entries(1, 2))
        new = RunChange.between(None, a_run(), entries(1, 1))

        dedicated_mongo.fail("insert", error_code=OUT_OF_DISK)
        with pytest.raises(StoreUnavailableError, match="refuses to commit runs"):
            await store.commit([change, new])
        assert await store.load([run.run_id, new.after.run_id]) == {run.run_id: run}

        # Rule 6: the entries are safe before the first run is written.
        dedicated_mongo.heal()
        dedicated_mongo.fail("update", error_code=OUT_OF_DISK)
        with pytest.raises(StoreUnavailableError, match="refuses to commit runs"):
            await store.commit([change])
        assert await loaded(store, run.run_id) == replace(run, last_seq=2)

        dedicated_mongo.heal()
        assert not await store.commit([change, new])
        assert await store.load([run.run_id, new.after.run_id]) == {
            run.run_id: change.after,
            new.after.run_id: replace(new.after, last_seq=1),
        }


async def test_reads_that_fail_say_so(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url) as store:
        run = await created(store)

        dedicated_mongo.fail("find", "aggregate", error_code=CURSOR_KILLED)
        for call in (
            store.load([run.run_id]),
            store.journal(run),
            store.count(),
            store.find(RunFilter(), limit=1, cursor=None),
            store.due([1], before=at(1), limit=1),
        ):
            with pytest.raises(StoreUnavailableError):
                await call

        dedicated_mongo.heal()
        assert await loaded(store, run.run_id) == run


async def test_a_server_that_takes_no_writes_is_given_up_in_time(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url, timeout=1.0) as store:
        run = await created(store)
        change = RunChange.between(run, replace(run, holder="worker-1", last_seq=1), (an_entry(1),))
        with dedicated_mongo.client() as client:
            client.admin.command("fsync", lock=True)
            with pytest.raises(StoreUnavailableError, match="did not answer within 1 s when asked to commit runs"):
                await store.commit([change])
            client.admin.command("fsyncUnlock")

        await given_again(store, change)
        assert await loaded(store, run.run_id) == change.after


async def given_again(store: MongoStore, change: RunChange) -> None:
    """Give *change* until it is kept."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert not await store.commit([change])
            except StoreUnavailableError:
                continue
            return


class Committers:
    """Commit runs of three entries each, several at a time, whatever happens to the servers, until it is enough."""

    def __init__(self, store: MongoStore) -> None:
        self.acknowledged: list[RunChange] = []
        self._store = store
        self._enough = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(self._commit())
            try:
                yield
            finally:
                self._enough = True

    async def _commit(self) -> None:
        while not self._enough:
            change = RunChange.between(None, a_run())
            await given_again(self._store, change)
            for seq in range(1, 4):
                run = change.after
                change = RunChange.between(run, replace(run, holder=f"worker-{seq}", last_seq=seq), (an_entry(seq),))
                await given_again(self._store, change)
            self.acknowledged.append(change)

    async def more(self) -> None:
        """Wait until some more runs have been committed."""
        enough = len(self.acknowledged) + 10
        await until(lambda: len(self.acknowledged) > enough)

    async def nothing_is_lost(self) -> bool:
        """Read everything that was acknowledged, and compare."""
        runs = [change.after for change in self.acknowledged]
        there = await self._store.load([run.run_id for run in runs])
        journals = await self._store.journals(runs)
        return all(there.get(run.run_id) == run and journals[run.run_id] == list(entries(1, 3)) for run in runs)


async def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url) as store:
        committers = Committers(store)
        async with committers.at_work():
            for _ in range(2):
                await committers.more()
                await asyncio.to_thread(dedicated_mongo.kill)
                await asyncio.to_thread(dedicated_mongo.start)
            await committers.more()

        assert await committers.nothing_is_lost()


async def test_nothing_that_was_acknowledged_is_lost_with_the_primary_of_a_set(replica_set: MongoReplicaSet) -> None:
    async with opened(replica_set.url, timeout=5.0) as store:
        committers = Committers(store)
        async with committers.at_work():
            for _ in range(2):
                await committers.more()
                primary = await asyncio.to_thread(replica_set.wait_for_primary)
                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(replica_set.wait_for_primary, other_than=primary)
                await committers.more()  # Two of three are enough.
                assert await committers.nothing_is_lost()
                await asyncio.to_thread(replica_set.start)
            await committers.more()

        assert await committers.nothing_is_lost()


async def test_without_a_majority_nothing_is_acknowledged_and_nobody_waits_for_ever(
    replica_set: MongoReplicaSet,
) -> None:
    async with opened(replica_set.url, timeout=1.0) as store:
        run = await created(store)
        change = RunChange.between(run, replace(run, holder="worker-1", last_seq=1), (an_entry(1),))
        primary = await asyncio.to_thread(replica_set.wait_for_primary)
        others = [member for member in replica_set.members if member is not primary]
        for member in others:
            await asyncio.to_thread(member.kill)

        # At first the primary does not know that it is none any more; then there is none.
        for _ in range(3):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(StoreUnavailableError, match="MongoDB"):
                    await store.commit([change])

        await asyncio.to_thread(replica_set.start)
        await given_again(store, change)
        assert await loaded(store, run.run_id) == change.after


@pytest.mark.parametrize("deletions", [0, 1])
async def test_rule_16_an_expiry_that_is_cut_short_is_finished_by_the_next(
    dedicated_mongo: MongoNode, deletions: int
) -> None:
    async with opened(dedicated_mongo.url) as store:
        run = await created(store, status=RunStatus.COMPLETED, expires_at=at(1), journal=3)

        # The journal's deletion, or the run's after it.
        with dedicated_mongo.client() as client:
            data = {"failCommands": ["delete"], "errorCode": OUT_OF_DISK, "failInternalCommands": False}
            mode: dict[str, int] | str = {"skip": deletions} if deletions else "alwaysOn"
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        with pytest.raises(StoreUnavailableError):
            await store.expire(now=at(2), limit=10)

        assert (await loaded(store, run.run_id)).expiring
        assert len(await store.journal(run)) == (0 if deletions else 3)
        retried = RunChange.between(run, replace(run, status=RunStatus.QUEUED, expires_at=None))
        assert set(await store.commit([retried])) == {run.run_id}

        dedicated_mongo.heal()
        assert await store.expire(now=at(2), limit=10) == 1
        assert await store.load([run.run_id]) == {}
        assert await store.journal(run) == []


class RunsOvertaken:
    """The collection of runs, in which something happens to them between being found and being marked."""

    def __init__(self, collection: Any, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._collection = collection
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    async def update_many(self, *args: Any) -> Any:
        await self._meanwhile()
        return await self._collection.update_many(*args)


async def test_a_run_that_is_opened_again_while_it_expires_stays(
    dedicated_mongo: MongoNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dedicated_mongo.url
    async with opened(url) as store, opened(url) as other:
        run = await created(store, status=RunStatus.FAILED, expires_at=at(1), journal=3)
        retried = RunChange.between(run, replace(run, status=RunStatus.QUEUED, expires_at=None))
        overtaken = RunsOvertaken(store._runs._collection, lambda: other.commit([retried]))
        monkeypatch.setattr(store._runs, "_collection", overtaken)

        assert await store.expire(now=at(2), limit=10) == 0

        assert await loaded(store, run.run_id) == retried.after
        assert len(await store.journal(retried.after)) == 3


async def test_a_commit_that_was_cut_short_leaves_no_gap_that_counts(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url) as store:
        run = await created(store, journal=2)
        newer = await dispatched(store, run)
        await store.commit([RunChange(run, replace(run, last_seq=4), entries(3, 4))])  # Too late to be heard.
        change = RunChange(newer, replace(newer, last_seq=6), entries(3, 6, epoch=2))

        # The free places are filled, and then the taken ones are not taken over.
        dedicated_mongo.fail("update", error_code=OUT_OF_DISK)
        with pytest.raises(StoreUnavailableError):
            await store.commit([change])
        dedicated_mongo.heal()

        assert await loaded(store, run.run_id) == newer
        assert newer.last_seq == 2
        assert await store.journal(newer) == list(entries(1, 2))
        assert (await store.journals([newer]))[run.run_id] == list(entries(1, 2))

        assert not await store.commit([change])
        assert await loaded(store, run.run_id) == change.after
        assert await store.journal(newer) == [*entries(1, 2), *entries(3, 6, epoch=2)]


@pytest.mark.parametrize("missing", [(3,), (5,), (4, 6), (3, 4, 5, 6, 7), (7, 8)])
async def test_a_journal_ends_at_its_first_gap(mongodb_url: str, mongodb_database: str, missing: Sequence[int]) -> None:
    async with opened(mongodb_url, mongodb_database) as store:
        whole = await created(store, journal=8)
        run = await appended(store, await created(store, journal=2), *entries(3, 8))
        with pymongo.MongoClient[Any](mongodb_url) as client:
            gone = {"run": run.run_id, "seq": {"$in": list(missing)}}
            client[mongodb_database].journal.delete_many(gone)

        there = await store.load([whole.run_id, run.run_id])
        assert there == {whole.run_id: whole, run.run_id: replace(run, last_seq=missing[0] - 1)}
        assert await store.journal(run) == list(entries(1, missing[0] - 1))

        assert not await store.commit([RunChange(there[run.run_id], run, entries(missing[0], 8))])
        assert await loaded(store, run.run_id) == run


# What the server makes of it.


async def test_no_query_reads_a_whole_collection(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url, "aiki") as store:
        runs = [
            await created(store, created_at=at(number), tags=("vip",), wake_at=at(number), journal=2)
            for number in range(30)
        ]
        over = await created(store, status=RunStatus.COMPLETED, expires_at=at(1))
        await store.add_dead_letters([a_letter(f"letter-{number}", seconds=number) for number in range(30)])
        with dedicated_mongo.client() as client:
            client.aiki.command("profile", 2)
            await use_everything(store, [run.run_id for run in runs])
            client.aiki.command("profile", 0)
            profiled = list(client.aiki["system.profile"].find({"ns": {"$ne": "aiki.system.profile"}}))

    assert wasteful(profiled) == []
    assert len(profiled) > 20
    assert over.run_id not in [document.get("_id") for document in profiled]


def wasteful(profiled: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell the operations that read a whole collection, or sorted what they had read."""
    return [
        {"command": document.get("command"), "plan": document.get("planSummary")}
        for document in profiled
        if "COLLSCAN" in document.get("planSummary", "") or document.get("hasSortStage")
    ]


async def use_everything(store: MongoStore, run_ids: Sequence[str]) -> None:
    """Call each method of the store that reads, and those that look before they write."""
    runs = await store.load(run_ids)
    one = runs[run_ids[0]]
    await store.journal(one, after_seq=1, limit=5)
    await store.journals(list(runs.values()))
    await store.due(range(PARTITIONS), before=at(5), limit=5)
    await store.due([1, 2], before=at(5), limit=5)
    await store.unfinished(range(PARTITIONS), after=None, limit=5)
    await store.unfinished([3], after=run_ids[0], limit=5)
    for wanted in (
        RunFilter(),
        RunFilter(workflow="greet"),
        RunFilter(statuses=(RunStatus.FAILED,)),
        RunFilter(statuses=(RunStatus.FAILED, RunStatus.QUEUED)),
        RunFilter(workflow="greet", statuses=(RunStatus.QUEUED,)),
        RunFilter(tag="vip"),
        RunFilter(created_after=at(3)),
    ):
        page = await store.find(wanted, limit=5, cursor=None)
        if page.cursor is not None:
            await store.find(wanted, limit=5, cursor=page.cursor)
    await store.count()
    await store.commit([RunChange.between(one, replace(one, holder="w"), (an_entry(3),))])
    await store.commit([RunChange.between(one, replace(one, holder="w"), (an_entry(3),))])
    await store.add_dead_letters([a_letter("letter-1", seconds=100)])
    await store.dead_letter("letter-1")
    letters = await store.dead_letters(limit=5, cursor=None, include_done=False)
    await store.dead_letters(limit=5, cursor=letters.cursor, include_done=True)
    await store.handle_dead_letter("letter-2", "discarded", at=at(1))
    await store.count_dead_letters(limit=5)
    await store.expire(now=at(5), limit=5)


async def test_what_a_load_reads_does_not_grow_with_the_journals(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url, "aiki") as store:
        runs = [await created(store, journal=300) for _ in range(3)]
        runs = [await appended(store, run, *entries(301, 304)) for run in runs]
        with dedicated_mongo.client() as client:
            client.aiki.command("profile", 2)
            assert await store.load([run.run_id for run in runs]) == {run.run_id: run for run in runs}
            client.aiki.command("profile", 0)
            read = [document["docsExamined"] for document in client.aiki["system.profile"].find({"op": "command"})]

    assert sum(read) <= 3 * (1 + 4)


async def test_the_owner_of_one_partition_reads_no_run_of_another_and_none_that_has_finished(
    dedicated_mongo: MongoNode,
) -> None:
    async with opened(dedicated_mongo.url, "aiki") as store:
        runs = [await created(store, a_run(f"a-{number:03}", wake_at=at(1))) for number in range(100)]
        ours = [run for run in runs if partition_of(run.run_id, PARTITIONS) == 3]
        for _ in range(100):
            await created(store, wake_at=at(1), status=RunStatus.COMPLETED)
        with dedicated_mongo.client() as client:
            client.aiki.command("profile", 2)
            unfinished = await store.unfinished([3], after="a", limit=5)
            due = await store.due([3], before=at(2), limit=5)
            client.aiki.command("profile", 0)
            profiled = list(client.aiki["system.profile"].find({"ns": "aiki.runs"}))

    assert [run.run_id for run in unfinished] == sorted(run.run_id for run in ours)[:5]
    assert len(due) == 5
    assert [document["docsExamined"] for document in profiled] == [5, 5]


async def test_the_server_removes_who_is_gone_by_itself(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url, "aiki") as store:
        await store.announce(Presence("w-1", "worker", {}, at(0)))
        await store.announce(Presence("w-2", "worker", {}, at(10**9)))

        with dedicated_mongo.client() as client:
            await until(lambda: client.aiki.workers.count_documents({}) < 2)
            assert [document["_id"] for document in client.aiki.workers.find()] == ["w-2"]


async def test_what_is_stored_can_be_read_by_people(dedicated_mongo: MongoNode) -> None:
    async with opened(dedicated_mongo.url, "aiki") as store:
        run = await created(store, a_run("run-7", wake_at=at(9)), journal=1)

        with dedicated_mongo.client() as client:
            [stored] = client.aiki.runs.find()
            [entry] = client.aiki.journal.find()
    assert stored["_id"] == run.run_id
    assert stored["workflow"] == "greet"
    assert stored["status"] == "queued"
    assert stored["open"] is True
    assert stored["due"] == stored["wake"]
    assert entry["_id"] == "run-7:first:00000001"
    assert entry["op"] == "task:send-email:abc#1"
