"""Tests in virtual time: a module that names a ``LOOP`` has its tests run on such event loops."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], AbstractEventLoop]] | None:
    module = item.getparent(pytest.Module)
    loop = None if module is None else getattr(module.obj, "LOOP", None)
    return None if loop is None else {"virtual-time": loop}
