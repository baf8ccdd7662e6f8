"""Upgrades: how a document of an older format becomes one of the current format.

A document says its format in ``v``. What changes a stored format adds one function
here, from the version that was to the next one, and a sample of the old document
to the tests; a document takes as many steps as it needs each time it is read.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiki.errors import StoreError

__all__ = ["Upgrades", "upgraded"]

Upgrades = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]
"""From the version that a function reads to the function; it writes the next version."""


def upgraded(document: dict[str, Any], upgrades: Upgrades, *, current: int) -> dict[str, Any]:
    """Bring *document* to the *current* format.

    Raises:
        StoreError: it was written by a newer Aiki, or by nobody that we know of.
    """
    version = document.get("v")
    while version != current:
        if not isinstance(version, int) or version not in upgrades:
            raise StoreError(
                f"a stored document has format version {version!r}; this Aiki reads up to {current}",
                hint="a newer Aiki wrote it? upgrade this one, all processes of a deployment the same",
            )
        document = upgrades[version](document)
        version += 1
    return document
