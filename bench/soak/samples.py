"""Samples: what every process, the broker and the database have at one moment, as one flat line of numbers."""

import re
import signal
from collections.abc import Iterator, Mapping

import psutil
from pymongo.errors import PyMongoError

from aiki.testing.servers import MongoNode, RabbitNode, ServerError
from bench.soak.faults import census_file
from bench.soak.watched import read_census
from bench.system import System

__all__ = ["Sample", "of_rabbitmq", "queue_lengths", "take_sample"]

Sample = Mapping[str, float]
"""By ``who/what``."""

_MEBIBYTE = 2**20
# What waits or is held in each queue, as the broker counted it a few seconds ago.
_LENGTHS = """
    lists:flatten([
        io_lib:format("~s ~w;", [element(4, proplists:get_value(name, Q)), proplists:get_value(messages, Q)])
        || Q <- rabbit_amqqueue:info_all(<<"/">>, [name, messages])
    ])
""".strip()
_LENGTH = re.compile(r"([^\s;\"]+) (\d+);")
_FEW = 3
_COLLECTIONS = ("runs", "journal", "orchestrators", "workers", "dead_letters")


def take_sample(system: System) -> dict[str, float]:
    """Look at everything. What is down at the moment is left out."""
    sample: dict[str, float] = {}
    for name, pid in system.pids.items():
        sample |= {f"{name}/{what}": value for what, value in _of_process(pid)}
    for name, service in dict(system.services).items():
        found = read_census(census_file(system.folder, name), pid=service.pid)
        if found is not None:
            sample |= {f"{name}/{what}": found[what] for what in ("tasks", "objects") if what in found}
            service.signal(signal.SIGUSR1)  # It answers in its own time; that is read the next time.
    sample |= {f"rabbitmq/{what}": value for what, value in of_rabbitmq(system.rabbit)}
    sample |= {f"mongodb/{what}": value for what, value in _of_mongodb(system.mongo)}
    return sample


def _of_process(pid: int) -> Iterator[tuple[str, float]]:
    try:
        process = psutil.Process(pid)
        yield "MiB", process.memory_info().rss / _MEBIBYTE
        yield "descriptors", process.num_fds()
        yield "threads", process.num_threads()
        yield "sockets", len(process.net_connections(kind="tcp"))
    except psutil.Error:
        return  # It was just killed, or is being started.


def of_rabbitmq(rabbit: RabbitNode) -> Iterator[tuple[str, float]]:
    """Tell what the broker has, unless it is down."""
    try:
        yield "connections", float(rabbit.evaluate("length(rabbit_networking:connections())"))
        lengths = queue_lengths(rabbit.evaluate(_LENGTHS))
    except ServerError:
        return
    yield "queues", len(lengths)
    for kind in ("aiki.events", "aiki.retry", "aiki.dead-letters"):
        yield f"messages in {kind}", sum(length for name, length in lengths.items() if name.startswith(kind))
    yield "messages for workers", sum(length for name, length in lengths.items() if not name.startswith("aiki."))
    yield "messages", sum(lengths.values())
    # One by one only where there are few: what is left over in the end has a name then.
    if sum(lengths.values()) <= _FEW:
        yield from ((f"messages in {name}", length) for name, length in lengths.items() if length)


def queue_lengths(text: str) -> Mapping[str, int]:
    """Read what the broker says of its queues."""
    return {name: int(length) for name, length in _LENGTH.findall(text)}


def _of_mongodb(mongo: MongoNode) -> Iterator[tuple[str, float]]:
    try:
        with mongo.client(timeout=2.0) as client:
            database = client["aiki"]
            for name in _COLLECTIONS:
                yield f"documents in {name}", database[name].estimated_document_count()
            yield "unfinished runs", database["runs"].count_documents({"open": True})
            yield "connections", client.admin.command("serverStatus")["connections"]["current"]
    except PyMongoError:
        return
