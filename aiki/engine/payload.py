"""Payloads: what users hand in and get back, as canonical JSON text.

A payload is text from the moment it is made until the moment it is read again:
the broker, the store and the orchestrator carry it and never look inside. So
nothing that JSON can say is lost on the way (integers of any size, any string),
and equal values have equal text, which is what replay addresses are made of.
"""

import json
from hashlib import blake2b
from typing import Any, NewType

from aiki.errors import PayloadError, PayloadTooLargeError, RecordMismatchError

__all__ = ["NULL", "PAYLOAD_BYTES_MAX", "Payload", "digest", "dump_payload", "load_payload"]

Payload = NewType("Payload", str)
"""Canonical JSON: sorted keys, no white space, no NaN or infinity, valid Unicode."""

NULL = Payload("null")

# A quorum queue keeps a message in the memory of three nodes and MongoDB refuses documents of 16 MiB;
# one mebibyte leaves both far from trouble and is still a long letter.
PAYLOAD_BYTES_MAX = 1024 * 1024

# Made once: json.dumps with options would make one for each call, which takes longer than a short payload itself.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def dump_payload(value: Any, *, what: str = "payload", bytes_max: int = PAYLOAD_BYTES_MAX) -> Payload:
    """Write *value*, built of JSON's own types, as canonical JSON text.

    Raises:
        PayloadError: the value holds something that JSON cannot say.
        PayloadTooLargeError: the text is longer than *bytes_max* bytes of UTF-8.
    """
    try:
        text = str(value) if type(value) is int else _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(what, str(error)) from error

    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:  # A lone surrogate: JSON can say it as an escape, UTF-8 cannot.
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        size = len(text)
    if size > bytes_max:
        raise PayloadTooLargeError(what, size=size, bytes_max=bytes_max)
    return Payload(text)


def load_payload(payload: Payload) -> Any:
    """Read a payload back into JSON's own types.

    Raises:
        RecordMismatchError: it is no JSON, or nests too deep. None of ours is; others can send what they like.
    """
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise RecordMismatchError("a payload", f"it is no JSON ({error})") from error


def digest(payload: Payload) -> str:
    """Hash *payload* (BLAKE2b, 64 bits as 16 hex digits): equal payloads, equal digests."""
    return blake2b(payload.encode(), digest_size=8).hexdigest()
