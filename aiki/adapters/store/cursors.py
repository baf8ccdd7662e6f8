"""Cursors: where a page of a listing ended, as text that travels through a command line.

A listing is ordered by a moment and an id, the newest first; a cursor names the
last item of a page by both. So a page never repeats or skips an item that was
there all the time, whatever comes and goes between two pages.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import NamedTuple

from aiki.codec.documents import milliseconds_of, moment_of
from aiki.errors import StoreError

__all__ = ["Cursor"]


class Cursor(NamedTuple):
    """The last item of a page."""

    at: datetime
    id: str

    def dump(self) -> str:
        """Write the cursor."""
        return urlsafe_b64encode(json.dumps([milliseconds_of(self.at), self.id]).encode()).decode().rstrip("=")

    @classmethod
    def load(cls, text: str) -> "Cursor":
        """Read a cursor.

        Raises:
            StoreError: it is none of ours.
        """
        try:
            milliseconds, identity = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            at = moment_of(int(milliseconds))
        except (ValueError, TypeError, OverflowError) as error:
            raise StoreError(
                f"{text[:100]!r} is no cursor of a listing", hint="pass on the cursor of the page before, or none"
            ) from error
        if not isinstance(identity, str):
            raise StoreError(f"{text[:100]!r} is no cursor of a listing")
        return cls(at, identity)
