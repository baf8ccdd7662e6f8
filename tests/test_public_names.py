"""The public surface: every name is there, is what it says, and costs nothing until it is used."""

import subprocess
import sys

import pytest

import aiki


@pytest.mark.parametrize("name", aiki.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(aiki, name) is not None
    assert name in dir(aiki)


def test_an_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(aiki, "nonsense")  # noqa: B009 - written out, the type checker would refuse the mistake under test


def test_importing_aiki_loads_no_driver() -> None:
    code = (
        "import aiki, sys; aiki.task; print([name for name in ('aio_pika', 'pymongo', 'click') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.strip() == "[]"
