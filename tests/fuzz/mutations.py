"""Valid messages, and what becomes of them in hostile hands."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aiki.codec import messages

__all__ = ["CODECS", "Codec", "mutants", "samples", "splices"]

SAMPLES = Path(__file__).parents[1] / "codec" / "samples" / "v1"


@dataclass(frozen=True)
class Codec:
    """One kind of message: how it is read, how it is written."""

    name: str
    decode: Callable[..., Any]
    encode: Callable[..., bytes]


CODECS = tuple(
    Codec(name, getattr(messages, f"decode_{name}"), getattr(messages, f"encode_{name}"))
    for name in ("events", "command", "notice", "control", "dead_letter", "query", "answer")
)


@cache
def samples(kind: str = "") -> tuple[bytes, ...]:
    """Give a valid message of each type, of one kind or of all."""
    return tuple(path.read_bytes() for path in sorted(SAMPLES.glob(f"{kind or '*'}.*.json")))


# What is likely to break a reader of JSON, or whoever reckons with what it read.
EVIL = (
    *("null", "true", "0", "-1", "1e400", "-1e400", "1e308", "NaN", "Infinity", "-Infinity", "1.5", "0.1e1"),
    *('""', '"\\ud800"', '"\\u0000"', '"\\u202e"', "{}", "[]", "[[]]", '{"":{}}', '"' + "x" * 70_000 + '"'),
    *("9" * 19, "9" * 5_000, "-" + "9" * 400, "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300),
    *('"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999Z"', '"2026-13-01T00:00:00Z"', '"2026-01-01T00:00:00+99:99"'),
)


def mutants(body: bytes) -> Iterator[bytes]:
    """Put each evil value in each place of a message, one at a time; leave each field out, and write each twice."""
    document = json.loads(body)
    for path in _places(document):
        for evil in EVIL:
            yield _with(document, path, evil)
        yield _without(document, path)
    for name in document:
        yield b"{" + json.dumps(name).encode() + b":1," + body[1:]


_MARK = "\x00here\x00"


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


def _copy_up_to(document: Any, path: tuple[Any, ...]) -> tuple[Any, Any]:
    copied = json.loads(json.dumps(document))
    parent = copied
    for key in path[:-1]:
        parent = parent[key]
    return copied, parent


def _with(document: Any, path: tuple[Any, ...], text: str) -> bytes:
    copied, parent = _copy_up_to(document, path)
    parent[path[-1]] = _MARK
    return json.dumps(copied).replace(json.dumps(_MARK), text).encode()


def _without(document: Any, path: tuple[Any, ...]) -> bytes:
    copied, parent = _copy_up_to(document, path)
    del parent[path[-1]]
    return json.dumps(copied).encode()


@st.composite
def splices(draw: st.DrawFn) -> bytes:
    """Damage a valid message as a bad disk, a bad programmer or an enemy would: several times over."""
    body = bytearray(draw(st.sampled_from(samples())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(start + draw(st.integers(0, 40)), len(body))
        match draw(st.sampled_from(["flip", "cut", "insert", "splice", "repeat", "evil"])):
            case "flip" if start < len(body):
                body[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del body[start:end]
            case "insert":
                body[start:start] = draw(st.binary(max_size=12))
            case "splice":
                other = draw(st.sampled_from(samples()))
                body[start:] = other[draw(st.integers(0, len(other))) :]
            case "repeat":
                body[start:start] = body[start:end] * draw(st.integers(1, 50))
            case _:
                body[start:end] = draw(st.sampled_from(EVIL)).encode()
    return bytes(body)
