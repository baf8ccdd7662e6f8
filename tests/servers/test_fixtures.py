"""What the fixtures of this suite promise to the tests."""

from typing import Any

import aio_pika
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase


async def test_a_test_has_a_virtual_host_of_its_own(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()

        queue = await channel.declare_queue("mine", durable=True, arguments={"x-queue-type": "quorum"})

        assert queue.declaration_result.message_count == 0


async def test_a_test_has_a_database_of_its_own(mongodb_url: str, mongodb_database: str) -> None:
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(mongodb_url) as client:
        database: AsyncDatabase[dict[str, Any]] = client.get_default_database()

        await database["things"].insert_one({"_id": 1})

        assert database.name == mongodb_database
        assert await database["things"].count_documents({}) == 1
