"""Identities: what names a run, a partition, an operation, an attempt.

All of it is computed from what it names, or from randomness that is handed in,
so that the same run always has the same names and the core stays pure.
"""

from datetime import datetime
from hashlib import sha1
from uuid import UUID
from zlib import crc32

__all__ = [
    "AIKI_NAMESPACE",
    "child_run_id",
    "idempotency_key_of",
    "letter_id_of",
    "partition_of",
    "run_id_at",
    "run_id_for_key",
    "run_id_within",
    "task_id_of",
]

AIKI_NAMESPACE = UUID("6f3f4d0c-41a1-5d0e-9a0e-0a1b9c6d7e21")
"""The namespace of every UUIDv5 that Aiki makes. Changing it would orphan every idempotent run."""


def run_id_at(now: datetime, entropy: bytes) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) from the time and ten random bytes: sorts by time, never repeats."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    random = int.from_bytes(entropy[:10], "big")
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return _as_uuid(f"{value:032x}")


def run_id_within(partition: int, partitions: int, now: datetime, entropy: bytes) -> str:
    """Make an id as ``run_id_at`` does that belongs to *partition*: nearly always, for up to a few dozen *partitions*.

    Of the random bits only the last twelve are looked at, and for a bounded time. An id of another partition
    names a run just as well.
    """
    run_id = run_id_at(now, entropy)
    head, tail = run_id[:-3], int(run_id[-3:], 16)
    before = crc32(head.encode())
    for number in range(tail, tail + _TRIES):
        text = f"{number & 0xFFF:03x}"
        if crc32(text.encode(), before) % partitions == partition:
            return head + text
    return run_id


# Of eight partitions, one in five thousand ids is of another one than was asked for.
_TRIES = 64


def run_id_for_key(workflow: str, key: str) -> str:
    """Name the run that *key* stands for: the same key meets its own document, without any index."""
    return _uuid5(f"run\0{workflow}\0{key}")


def partition_of(run_id: str, partitions: int) -> int:
    """Tell which of *partitions* event queues a run belongs to."""
    return crc32(run_id.encode()) % partitions


def idempotency_key_of(run_id: str, incarnation: str, operation: str) -> str:
    """Make the key that a task hands to the systems it calls: the same on each attempt and after each crash."""
    return _uuid5(f"operation\0{run_id}\0{incarnation}\0{operation}")


def task_id_of(run_id: str, incarnation: str, operation: str, attempt: int) -> str:
    """Name one attempt of a task that runs on another worker."""
    return _uuid5(f"task\0{run_id}\0{incarnation}\0{operation}\0{attempt}")


def child_run_id(run_id: str, incarnation: str, operation: str, attempt: int) -> str:
    """Name the child run that an operation of a parent starts."""
    return _uuid5(f"child\0{run_id}\0{incarnation}\0{operation}\0{attempt}")


def letter_id_of(run_id: str, incarnation: str, epoch: int) -> str:
    """Name the dead letter of a dispatch that could not be survived: the same, however often it is parked."""
    return _uuid5(f"letter\0{run_id}\0{incarnation}\0{epoch}")


def _uuid5(name: str) -> str:
    """Make a UUIDv5 in our namespace as text: what ``uuid.uuid5`` makes, without making an object of it."""
    digest = bytearray(sha1(AIKI_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return _as_uuid(digest.hex())


def _as_uuid(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
