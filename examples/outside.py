"""Stands in for what the examples talk to: a mail server, a database of customers, a payment provider.

A real application calls HTTP services here. These take a moment to answer, do a
thing once per idempotency key, as a good service does, and write down in the file
``EXAMPLES_LOG``, if there is one, when a call began and when it ended.
"""

import asyncio
import json
import os
import time
from hashlib import blake2b
from pathlib import Path

__all__ = ["Refused", "call"]

_LOG = os.environ.get("EXAMPLES_LOG")
_SECONDS = float(os.environ.get("EXAMPLES_SECONDS", "0.05"))


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The other side said no."""


async def call(action: str, *, key: str, refuse: str | None = None) -> str:
    """Have *action* done and give its reference, which is the same for the same *key*.

    Raises:
        Refused: the other side does not do it, for the reason *refuse*.
    """
    _note("begin", action, key)
    await asyncio.sleep(_SECONDS)
    if refuse is not None:
        _note("refused", action, key)
        raise Refused(refuse)
    _note("end", action, key)
    return blake2b(key.encode(), digest_size=4).hexdigest()


def _note(what: str, action: str, key: str) -> None:
    if _LOG is None:
        return
    line = json.dumps({"at": time.time(), "what": what, "action": action, "key": key, "process": os.getpid()})
    with Path(_LOG).open("a", encoding="utf-8") as log:
        log.write(line + "\n")
