"""Fulfil an order: reserve in parallel, charge, ship. If something fails, take back what was done.

python -m examples.order_fulfilment              everything in this process, no servers
python -m examples.order_fulfilment --servers    on RabbitMQ, with `aiki orchestrator` running
"""

import asyncio
import sys

from pydantic import BaseModel, PositiveInt

from aiki import (
    Client,
    Run,
    RunFailedError,
    TaskContext,
    TaskFailedError,
    Worker,
    embedded,
    exponential,
    task,
    workflow,
)
from examples import outside


class Item(BaseModel):
    """So many of something."""

    sku: str
    quantity: PositiveInt = 1


class Order(BaseModel):
    """What somebody wants, and how they pay."""

    number: str
    items: list[Item]
    card: str
    cents: PositiveInt


class Receipt(BaseModel):
    """What they get."""

    payment: str
    parcel: str


class CardDeclined(Exception):  # noqa: N818 - reads as what happened
    """The bank says no. It will say no again."""


PATIENT = exponential(max_attempts=5, base_delay=0.2, max_delay=30.0, jitter=True)


@task(retry=PATIENT, timeout=10)
async def reserve(context: TaskContext, order: str, item: Item) -> str:
    """Put an item aside for an order."""
    return await outside.call(f"reserve {item.quantity} × {item.sku} for {order}", key=context.idempotency_key)


@task(retry=PATIENT, timeout=10)
async def release(context: TaskContext, order: str, item: Item) -> None:
    """Put an item back, if it was put aside for the order."""
    await outside.call(f"release {item.quantity} × {item.sku} of {order}", key=context.idempotency_key)


@task(retry=exponential(max_attempts=5, base_delay=0.2, give_up_on=CardDeclined), timeout=10)
async def charge(context: TaskContext, order: str, card: str, cents: int) -> str:
    """Take the money for an order. The provider charges once per key, however often it is asked."""
    declined = "not enough money" if card == "empty" else None
    try:
        return await outside.call(f"charge {cents} cents for {order}", key=context.idempotency_key, refuse=declined)
    except outside.Refused as error:
        raise CardDeclined(str(error)) from error


@task(retry=PATIENT, timeout=10)
async def refund(context: TaskContext, order: str) -> None:
    """Give back what was taken for an order, if anything was."""
    await outside.call(f"refund {order}", key=context.idempotency_key)


@task(retry=PATIENT, timeout=10)
async def ship(context: TaskContext, order: str, reservations: list[str]) -> str:
    """Hand over a parcel with what was reserved."""
    return await outside.call(f"ship {order}, {len(reservations)} items", key=context.idempotency_key)


@workflow(version="1.0.0")
async def order_fulfilment(run: Run, order: Order) -> Receipt:
    """Either all of it happens, or what happened is taken back."""
    try:
        reservations = await reserve_all(run, order)
        payment = await charge.run(run, order.number, order.card, order.cents)
        parcel = await ship.run(run, order.number, reservations)
    # A cancelled run cleans up, too: cancelling it raises CancelledError where it waits.
    except (TaskFailedError, asyncio.CancelledError):
        run.logger.warning("order.taken_back", order=order.number)
        await take_back(run, order)
        raise
    return Receipt(payment=payment, parcel=parcel)


async def reserve_all(run: Run, order: Order) -> list[str]:
    """Reserve all items at the same time; when this is over, so are all attempts."""
    outcomes = await asyncio.gather(
        *(reserve.run(run, order.number, item) for item in order.items), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, str)]


async def take_back(run: Run, order: Order) -> None:
    """Undo everything at the same time.

    What failed or was cancelled may have happened all the same, so nobody asks how far the order came: each of these
    tasks undoes what there is to undo.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(refund.run(run, order.number))
        for item in order.items:
            group.create_task(release.run(run, order.number, item))


async def fulfil(client: Client) -> None:
    """Fulfil an order that works out, and one that does not."""
    items = [Item(sku="tea", quantity=2), Item(sku="cup"), Item(sku="spoon", quantity=2)]
    good = Order(number="1001", items=items, card="full", cents=4200)
    bad = good.model_copy(update={"number": "1002", "card": "empty"})

    async with Worker(client, workflows=[order_fulfilment]):
        for order in (good, bad):
            # The number of the order is the key: asked twice, it is fulfilled once.
            start = order_fulfilment.with_options(idempotency_key=f"order-{order.number}")
            handle = await start.enqueue(client, order)
            try:
                print(f"order {order.number}: {await handle.wait_for_completion(timeout=60)}")
            except RunFailedError as error:
                print(f"order {order.number}: {error.message}")


async def main(*, servers: bool) -> None:
    """Connect to RabbitMQ, or bring everything along."""
    async with Client.connect() if servers else embedded() as client:
        await fulfil(client)


if __name__ == "__main__":
    asyncio.run(main(servers="--servers" in sys.argv))
