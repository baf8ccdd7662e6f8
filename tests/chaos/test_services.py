"""Processes of Aiki in chaos runs are minded as services are: one that finds no server is started again."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aiki.testing.chaos import cluster
from aiki.testing.chaos.cluster import Service
from aiki.testing.servers.node import ServerStartError

ENDS_TWICE = """
import pathlib, sys, time
starts = pathlib.Path("starts")
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
if len(starts.read_text()) < 3:
    sys.exit("no server answers")
print("ready", flush=True)
time.sleep(600)
"""


class Flaky(Service):
    """A process that ends twice before it stays."""

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", f"import os; os.chdir({str(self.folder)!r})\n{ENDS_TWICE}"]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr(cluster, "STARTS_PAUSE", 0.0)
    flaky = Flaky(tmp_path / "flaky", arguments=(), says="ready", gates=(), settings={})
    yield flaky
    flaky.kill()


def starts_of(service: Service) -> int:
    return len((service.folder / "starts").read_text())


def test_a_process_that_finds_no_server_is_started_until_it_does(service: Flaky) -> None:
    service.start()

    assert service.is_running
    assert starts_of(service) == 3


def test_a_process_that_was_ended_on_purpose_is_not_started_again(service: Flaky) -> None:
    service.is_over = True

    with pytest.raises(ServerStartError, match="no server answers"):
        service.start()

    assert starts_of(service) == 1


def test_a_process_that_never_stays_is_given_up_in_the_end(service: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STARTS_SECONDS", 0.0)

    with pytest.raises(ServerStartError, match="no server answers"):
        service.start()

    assert starts_of(service) == 1
