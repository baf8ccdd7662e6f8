"""The store of the simulation keeps the contract of all stores."""

from collections.abc import AsyncIterator

import pytest

from aiki.testing.contracts.store import StoreContract
from aiki.testing.simulation.store import InlineStore


class TestInlineStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[InlineStore]:
        store = InlineStore()
        await store.start()
        yield store
        await store.close()
