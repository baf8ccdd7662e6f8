"""Where no server can be had, the error says what to do; nothing is skipped."""

from pathlib import Path

import pytest

from aiki.testing.servers import ServerError, ServersUnavailableError, local_mongo, local_rabbit, programs
from aiki.testing.servers.remote import RemoteRabbit


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without RabbitMQ, MongoDB, Docker and apt-get, and with an empty cache."""
    for name in ("AIKI_AMQP_URL", "AIKI_MONGODB_URL", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(programs, "RABBITMQ_HOMES", ())
    monkeypatch.setattr(programs, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(programs, "MONGOD_WHEEL", "no such requirement")
    monkeypatch.setattr("aiki.testing.servers.local.docker_answers", lambda: False)


@pytest.mark.usefixtures("bare_machine")
def test_no_rabbitmq_is_an_error_with_advice() -> None:
    with (
        pytest.raises(ServersUnavailableError, match=r"(?s)no RabbitMQ.*apt-get install.*Docker.*AIKI_AMQP_URL"),
        local_rabbit(),
    ):
        pass


@pytest.mark.usefixtures("bare_machine")
def test_no_mongodb_is_an_error_with_advice() -> None:
    with (
        pytest.raises(ServersUnavailableError, match=r"(?s)no MongoDB.*pip cannot fetch.*AIKI_MONGODB_URL"),
        local_mongo(),
    ):
        pass


def test_urls_in_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIKI_AMQP_URL", "amqp://ada:love%2Flace@rabbit.example:5673/%2F")
    monkeypatch.setenv("AIKI_MONGODB_URL", "mongodb://mongo.example/?replicaSet=rs0")

    with local_rabbit() as rabbit, local_mongo() as mongo:
        assert rabbit.url_of("a/b") == "amqp://ada:love%2Flace@rabbit.example:5673/a%2Fb"
        assert mongo.url_of("mine") == "mongodb://mongo.example/mine?replicaSet=rs0"


def test_a_broker_without_its_management_plugin_is_an_error_with_advice() -> None:
    rabbit = RemoteRabbit("amqp://localhost", management_url="http://127.0.0.1:1")

    with pytest.raises(ServerError, match=r"(?s)cannot be reached.*enable rabbitmq_management"):
        rabbit.add_vhost("mine")
