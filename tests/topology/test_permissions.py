"""The definitions and the permissions on a real RabbitMQ: what a role needs is allowed, all else is refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aio_pika
import pytest
from yarl import URL

import broker_topology
from aiki.adapters.broker.rabbitmq import RabbitBroker, apply_topology, check_topology
from aiki.engine.commands import ArmTimer
from aiki.engine.queries import GetRun, RunFound
from aiki.engine.retry import RETRY_GRID_MS
from aiki.errors import BrokerUnavailableError, ConfigurationError
from aiki.testing.contracts.broker_parts.system import (
    PATIENCE,
    bodies_of,
    collect,
    dead_letter,
    execute_run,
    outcome,
    signal,
    told,
)
from aiki.testing.servers import RabbitNode
from broker_topology import Role, definitions, password_hash

PASSWORD = "of-a-test"
QUEUE = "contract@1"
TEAM, TEAM_QUEUE = "team-a.x", "team-a.x@1"
PARTITIONS = 2

pytestmark = pytest.mark.timeout(120)

Channel = aio_pika.abc.AbstractChannel


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A RabbitMQ that has loaded the definitions: users are of the whole node, so it is one of our own."""
    folder = tmp_path_factory.mktemp("permissions")
    hashes = {role: password_hash(PASSWORD, b"salt") for role in Role}
    file = folder / "definitions.json"
    made = definitions(PARTITIONS, password_hashes=hashes, workers=[TEAM])
    file.write_text(json.dumps(made), encoding="utf-8")
    with RabbitNode(folder / "rabbit") as node:
        node.ctl("import_definitions", str(file))
        yield node


@pytest.fixture
def url_of(node: RabbitNode) -> Callable[[Role], str]:
    return lambda role: node.url_of("/", user=f"aiki-{role}", password=PASSWORD)


@pytest.fixture
async def broker_of(url_of: Callable[[Role], str]) -> AsyncIterator[Callable[[Role], Awaitable[RabbitBroker]]]:
    brokers: list[RabbitBroker] = []

    async def connect(role: Role) -> RabbitBroker:
        broker = RabbitBroker(url_of(role), partitions=PARTITIONS)
        brokers.append(broker)
        await broker.start()
        return broker

    yield connect
    for broker in brokers:
        await broker.close()


BrokerOf = Callable[[Role], Awaitable[RabbitBroker]]
UrlOf = Callable[[Role], str]


async def test_the_definitions_make_exactly_what_the_code_declares(url_of: UrlOf) -> None:
    assert await check_topology(url_of(Role.OPERATOR), partitions=PARTITIONS) == []


async def test_each_role_can_do_its_work(broker_of: BrokerOf) -> None:
    client, worker, orchestrator = [await broker_of(role) for role in (Role.CLIENT, Role.WORKER, Role.ORCHESTRATOR)]
    events = await orchestrator.consume_events(0, prefetch=10)
    requests = await orchestrator.consume_queries(prefetch=10)
    letters = await orchestrator.consume_dead_letters(prefetch=10)
    commands = await worker.consume_commands([QUEUE, "gpu"], prefetch=10)
    control = await worker.consume_control("worker-1")
    notices = await client.consume_notices("client-1")
    await notices.watch("run-2")

    await client.publish_events(0, [signal(1)], timeout=PATIENCE)
    await worker.publish_events(0, [signal(2)], timeout=PATIENCE)
    await worker.park(dead_letter(1), timeout=PATIENCE)
    timer = ArmTimer(event=signal(3, run_id="run-0"), delay_ms=RETRY_GRID_MS[0])
    await orchestrator.send(
        [
            execute_run(1, queue=QUEUE),
            execute_run(2, queue="new@1"),
            told("worker-1", "run-1"),
            outcome("run-1", client="client-1"),
            outcome("run-2"),
            timer,
        ],
        timeout=PATIENCE,
    )
    await orchestrator.redeliver(dead_letter(2, origin="gpu", body="?"), timeout=PATIENCE)
    asking = [asyncio.create_task(one.ask(GetRun(run_id="run-1"), timeout=PATIENCE)) for one in (client, worker)]
    for delivery in await collect(requests, 2):
        await orchestrator.answer(delivery.body, RunFound(run=None))

    assert bodies_of(await collect(events, 2)) == [(signal(1),), (signal(2),)]
    assert bodies_of(await collect(commands, 1)) == [execute_run(1, queue=QUEUE)]
    assert bodies_of(await collect(control, 1)) == [told("worker-1", "run-1")]
    assert bodies_of(await collect(notices, 2)) == [outcome("run-1", client="client-1"), outcome("run-2")]
    assert {letter.body.id for letter in await collect(letters, 1)} >= {"letter-1"}
    assert await asyncio.gather(*asking) == [RunFound(run=None)] * 2
    await (await orchestrator.consume_commands(["new@1"], prefetch=1)).close()


async def publish(channel: Channel, exchange: str, key: str) -> None:
    await (await channel.get_exchange(exchange, ensure=False)).publish(aio_pika.Message(b"?"), key)


async def publish_by_default_exchange(channel: Channel, queue: str) -> None:
    await channel.default_exchange.publish(aio_pika.Message(b"?"), queue)


async def ignore(_message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Take a message that must not come."""


async def consume(channel: Channel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).consume(ignore, timeout=PATIENCE)


async def declare(channel: Channel, queue: str) -> None:
    await channel.declare_queue(queue, durable=True, timeout=PATIENCE)


async def delete(channel: Channel, queue: str) -> None:
    await channel.queue_delete(queue, timeout=PATIENCE)


async def bind_everything(channel: Channel, queue: str) -> None:
    own = await channel.declare_queue(f"aiki.notices.{queue}", exclusive=True)
    await own.bind("aiki.notices", "#", timeout=PATIENCE)


async def bind_to(channel: Channel, exchange: str, key: str) -> None:
    """Have a copy of what goes to others."""
    own = await channel.declare_queue(f"aiki.notices.{key}", exclusive=True)
    await own.bind(exchange, key, timeout=PATIENCE)


REFUSED = [
    (Role.CLIENT, bind_to, ("aiki.commands", QUEUE)),
    (Role.CLIENT, bind_to, ("aiki.events", "0")),
    (Role.CLIENT, bind_to, ("aiki.control", "worker-1")),
    (Role.CLIENT, bind_to, ("aiki.queries", "aiki.queries")),
    (Role.CLIENT, bind_to, ("aiki.dead", "")),
    (Role.WORKER, bind_to, ("aiki.events", "0")),
    (Role.WORKER, bind_to, ("aiki.queries", "aiki.queries")),
    (Role.WORKER, bind_to, ("aiki.dead", "")),
    (Role.CLIENT, publish, ("aiki.commands", QUEUE)),
    (Role.CLIENT, publish, ("aiki.control", "worker-1")),
    (Role.CLIENT, publish, ("aiki.notices", "a.b.c")),
    (Role.CLIENT, publish, ("aiki.dead", "")),
    (Role.CLIENT, publish_by_default_exchange, ("aiki.events.0",)),
    (Role.CLIENT, consume, ("aiki.events.0",)),
    (Role.CLIENT, consume, ("aiki.dead-letters",)),
    (Role.CLIENT, consume, ("aiki.queries",)),
    (Role.CLIENT, consume, (QUEUE,)),
    (Role.CLIENT, declare, ("anything@1",)),
    (Role.CLIENT, delete, ("aiki.events.0",)),
    (Role.CLIENT, bind_everything, ("client",)),
    (Role.WORKER, publish, ("aiki.commands", QUEUE)),
    (Role.WORKER, publish, ("aiki.control", "worker-2")),
    (Role.WORKER, publish_by_default_exchange, (QUEUE,)),
    (Role.WORKER, consume, ("aiki.events.0",)),
    (Role.WORKER, consume, ("aiki.dead-letters",)),
    (Role.WORKER, delete, ("aiki.events.0",)),
    (Role.WORKER, declare, ("aiki.events.9",)),
    (Role.WORKER, bind_everything, ("worker",)),
    (Role.ORCHESTRATOR, declare, ("amq.something",)),
    (Role.MONITOR, publish, ("aiki.events", "0")),
    (Role.MONITOR, consume, ("aiki.events.0",)),
    (Role.MONITOR, declare, ("anything@1",)),
]


@pytest.mark.parametrize(
    ("role", "act", "arguments"),
    REFUSED,
    ids=[f"{role}-{act.__name__}-{'-'.join(arguments)}" for role, act, arguments in REFUSED],
)
async def test_what_a_role_does_not_need_is_refused(
    url_of: UrlOf, role: Role, act: Callable[..., Awaitable[None]], arguments: tuple[str, ...]
) -> None:
    async with await aio_pika.connect(url_of(role)) as connection:
        channel = await connection.channel()

        with pytest.raises((aio_pika.exceptions.ChannelClosed, asyncio.CancelledError)) as caught:
            await act(channel, *arguments)

    assert "ACCESS_REFUSED" in repr(caught.value)


@pytest.fixture
def team_url(node: RabbitNode) -> str:
    return node.url_of("/", user=f"aiki-worker-{TEAM}", password=PASSWORD)


async def test_workers_of_one_workflow_can_do_their_work(broker_of: BrokerOf, team_url: str) -> None:
    orchestrator = await broker_of(Role.ORCHESTRATOR)
    await orchestrator.send([execute_run(1, queue=TEAM_QUEUE)], timeout=PATIENCE)  # Declares the queue.
    worker = RabbitBroker(team_url, partitions=PARTITIONS)
    await worker.start()
    try:
        commands = await worker.consume_commands([TEAM_QUEUE], prefetch=1)
        await (await worker.consume_control("worker-a")).close()
        await worker.publish_events(1, [signal(9)], timeout=PATIENCE)

        assert bodies_of(await collect(commands, 1)) == [execute_run(1, queue=TEAM_QUEUE)]
    finally:
        await worker.close()


@pytest.mark.parametrize(
    ("act", "arguments"),
    [
        (consume, (QUEUE,)),
        (consume, ("gpu",)),
        (consume, ("teamXaYx@1",)),
        (bind_to, ("aiki.commands", QUEUE)),
        (bind_to, ("aiki.commands", TEAM_QUEUE)),
        (publish, ("aiki.commands", TEAM_QUEUE)),
        (publish_by_default_exchange, (TEAM_QUEUE,)),
        (declare, (QUEUE,)),
        (declare, (f"{TEAM_QUEUE}.2",)),
        (delete, (TEAM_QUEUE,)),
        (consume, ("aiki.events.0",)),
    ],
)
async def test_workers_of_one_workflow_cannot_have_the_orders_of_another(
    broker_of: BrokerOf, team_url: str, act: Callable[..., Awaitable[None]], arguments: tuple[str, ...]
) -> None:
    orchestrator = await broker_of(Role.ORCHESTRATOR)
    for queue in (QUEUE, "gpu", "teamXaYx@1", TEAM_QUEUE):
        await (await orchestrator.consume_commands([queue], prefetch=1)).close()
    async with await aio_pika.connect(team_url) as connection:
        channel = await connection.channel()

        with pytest.raises((aio_pika.exceptions.ChannelClosed, asyncio.CancelledError)) as caught:
            await act(channel, *arguments)

    assert "ACCESS_REFUSED" in repr(caught.value)


async def test_who_may_not_declare_is_told_what_is_missing(node: RabbitNode, url_of: UrlOf) -> None:
    broker = RabbitBroker(url_of(Role.CLIENT), partitions=PARTITIONS + 1)

    with pytest.raises(ConfigurationError, match="permission"):
        await broker.start()
    with pytest.raises(ConfigurationError, match="permission"):
        await apply_topology(url_of(Role.WORKER), partitions=PARTITIONS + 1)


async def test_the_file_in_the_package_can_be_loaded_and_lets_nobody_in(tmp_path: Path, node: RabbitNode) -> None:
    file = Path(broker_topology.__file__).parent / "definitions.json"
    node.add_vhost("spare")
    text = file.read_text(encoding="utf-8").replace('"vhost": "/"', '"vhost": "spare"')
    copy = tmp_path / "definitions.json"
    # Under other names: those of this node have passwords that the other tests need.
    copy.write_text(text.replace('"aiki-', '"spare-'), encoding="utf-8")

    node.ctl("import_definitions", str(copy))

    assert await check_topology(node.url_of("spare")) == []
    for password in ("", "guest", "aiki"):
        url = URL(node.url_of("spare")).with_user("spare-client").with_password(password)
        broker = RabbitBroker(str(url))
        with pytest.raises(BrokerUnavailableError):
            await broker.start()
