"""Pages of listings, and cursors: where a page ended, as text that travels through a command line.

A listing is ordered by a moment and an id, the newest first; a cursor names the
last item of a page by both. So a page never repeats or skips an item that was
there all the time, whatever comes and goes between two pages.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from aiki.codec.documents import milliseconds_of, moment_of
from aiki.engine.queries import DeadLetterPage, RunPage, StoredDeadLetter
from aiki.engine.state import RunState
from aiki.errors import StoreError

__all__ = ["Cursor", "letter_page", "run_page"]


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
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(
                f"{text[:100]!r} is no cursor of a listing", hint="pass on the cursor of the page before, or none"
            ) from error
        if not isinstance(identity, str):
            raise StoreError(f"{text[:100]!r} is no cursor of a listing")
        return cls(at, identity)


def run_page(found: Sequence[RunState], *, limit: int) -> RunPage:
    """Make a page of *found*, which holds one more than *limit* when another page follows."""
    runs = tuple(found[:limit])
    cursor = Cursor(runs[-1].created_at, runs[-1].run_id).dump() if runs and len(found) > limit else None
    return RunPage(runs=runs, cursor=cursor)


def letter_page(found: Sequence[StoredDeadLetter], *, limit: int) -> DeadLetterPage:
    """Make a page of *found*, as ``run_page`` does."""
    letters = tuple(found[:limit])
    last = letters[-1].letter if letters and len(found) > limit else None
    return DeadLetterPage(letters=letters, cursor=None if last is None else Cursor(last.at, last.id).dump())
