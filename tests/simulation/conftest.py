"""Tests in virtual time: a module that names a ``LOOP`` has its tests run on such event loops."""

import asyncio
from collections.abc import Callable, Mapping

import pytest


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    module = item.getparent(pytest.Module)
    return {"loop": getattr(module.obj if module else None, "LOOP", asyncio.new_event_loop)}
