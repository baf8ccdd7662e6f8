"""What each part of the way of a run takes by itself, one at a time: why a run takes what it takes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import count

from aiki.adapters.broker.rabbitmq import apply_topology
from aiki.adapters.broker.rabbitmq.outgoing import Outgoing
from aiki.adapters.broker.rabbitmq.windows import Refusal
from aiki.adapters.store.mongodb.driver import close_client, connect, open_database
from aiki.cli.measuring import one_at_a_time, percentile
from bench.figures import Figures
from bench.raw.shape import command_body, entry_document, run_document, run_id
from bench.raw.wire import Wire
from broker_topology import COMMANDS, command_queue

__all__ = ["parts"]

# Nobody else consumes from here; from where what is only confirmed goes, nobody does.
QUEUE, UNCONSUMED = "parts@1.0.0", "unconsumed-parts@1.0.0"

_numbers = count(10**9)


async def parts(amqp_url: str, mongodb_url: str, *, times: int) -> Figures:
    """Do each of them so many *times*; the figure is the median, in milliseconds."""
    await apply_topology(amqp_url, more=command_queue(QUEUE) + command_queue(UNCONSUMED))
    wire = await Wire.open(amqp_url)
    client = connect(mongodb_url)
    try:
        database = open_database(client, None)
        runs, journal = database["runs"], database["journal"]
        deliveries = await wire.consume(QUEUE, prefetch=100)
        kept, message = (
            Outgoing(exchange=COMMANDS, routing_key=queue, body=command_body(0, 3), type="ExecuteRun")
            for queue in (UNCONSUMED, QUEUE)
        )

        unconfirmed: list[asyncio.Future[Mapping[int, Refusal]]] = []

        async def confirm(_: int) -> None:
            await wire.publish((kept,))

        async def deliver(_: int) -> None:
            unconfirmed.append(wire.publish((message,)))
            ((tag, _body),) = await deliveries.receive()
            await deliveries.acknowledge(tag)

        async def insert(_: int) -> None:
            await runs.insert_one(run_document(next(_numbers), 1))

        async def replace(_: int) -> None:
            number = 10**9
            await runs.replace_one({"_id": run_id(number)}, run_document(number, 2))

        async def record(_: int) -> None:
            await journal.insert_one(entry_document(next(_numbers), 1))

        work: Mapping[str, Callable[[int], Awaitable[None]]] = {
            "publish until confirmed ms": confirm,
            "publish until delivered ms": deliver,
            "insert a run ms": insert,
            "replace a run ms": replace,
            "insert an entry ms": record,
        }
        taken = {name: (await one_at_a_time(one, times=times)).taken for name, one in work.items()}
        await asyncio.gather(*unconfirmed)
        return {name: percentile(seconds, 0.5) * 1000 for name, seconds in taken.items()}
    finally:
        await wire.close()
        await close_client(client)
