"""Settings: where they are read from, what is refused, and that passwords stay hidden."""

from datetime import timedelta
from pathlib import Path

import pytest

from aiki.config import Address, Settings, load_settings, unknown_variables
from aiki.errors import ConfigurationError
from aiki.observability import masked


def project(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def test_without_any_setting_there_are_defaults(tmp_path: Path) -> None:
    settings = load_settings({}, directory=tmp_path)

    assert settings == Settings(root=tmp_path)
    assert settings.partitions == 8
    assert settings.retention == timedelta(days=30)


def test_the_nearest_project_file_with_a_table_of_ours_is_read(tmp_path: Path) -> None:
    project(tmp_path, '[tool.aiki]\napp = ["shop.workflows"]\nshutdown-grace = "1m30s"\n')
    inner = tmp_path / "packages" / "inner"
    inner.mkdir(parents=True)
    project(inner, "[tool.other]\n")

    settings = load_settings({}, directory=inner)

    assert settings.app == ("shop.workflows",)
    assert settings.shutdown_grace == timedelta(seconds=90)
    assert settings.root == tmp_path
    assert settings.data_path() == tmp_path / ".aiki" / "dev.db"


def test_the_environment_wins_and_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    project(tmp_path, "[tool.aiki]\npartitions = 4\nconcurrency = 7\n")

    settings = load_settings({"AIKI_PARTITIONS": "16", "AIKI_CONCURRENCY": " "}, directory=tmp_path)

    assert settings.partitions == 16
    assert settings.concurrency == 7


def test_what_is_on_or_off_can_be_said_in_several_ways() -> None:
    assert [load_settings({"AIKI_UVLOOP": text}).uvloop for text in ("1", "true", "on")] == [True] * 3
    assert [load_settings({"AIKI_UVLOOP": text}).uvloop for text in ("0", "false", "")] == [False] * 3


def test_several_apps_are_separated_by_commas() -> None:
    assert load_settings({"AIKI_APP": "shop.workflows, shop.more"}).app == ("shop.workflows", "shop.more")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2), ("0.5", 0.5), ("250ms", 0.25), ("15m", 900), ("1h 30m", 5400), ("30d", 30 * 86400)],
)
def test_a_duration_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert load_settings({"AIKI_TIMEOUT": text}).timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "address"),
    [("8080", Address("0.0.0.0", 8080)), ("127.0.0.1:9", Address("127.0.0.1", 9)), ("[::1]:80", Address("::1", 80))],
)
def test_an_address_is_a_host_and_a_port_or_a_port_alone(text: str, address: Address) -> None:
    assert load_settings({"AIKI_HEALTH": text}).health == address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AMQP_URL", "http://localhost"),
        ("MONGODB_URL", "localhost"),
        ("MONGODB_DATABASE", "a.b"),
        ("PARTITIONS", "0"),
        ("PARTITIONS", "eight"),
        ("CONCURRENCY", "-1"),
        ("RETENTION", "0"),
        ("RETENTION", "a while"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "1e999"),
        ("HEALTH", "localhost"),
        ("HEALTH", "localhost:99999"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({f"AIKI_{name}": value})

    assert f"AIKI_{name} is {value!r}" in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("allowed: ")


def test_a_wrong_value_in_the_project_file_names_the_file(tmp_path: Path) -> None:
    project(tmp_path, "[tool.aiki]\npartitions = 1000\n")

    with pytest.raises(ConfigurationError, match=r"partitions under \[tool.aiki\] in .*pyproject\.toml is '1000'"):
        load_settings({}, directory=tmp_path)


def test_an_unknown_setting_in_the_project_file_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    project(tmp_path, "[tool.aiki]\npartition = 8\n")

    with pytest.raises(ConfigurationError, match="did you mean 'partitions'"):
        load_settings({}, directory=tmp_path)


@pytest.mark.parametrize("text", ["[tool.aiki\n", '[tool]\naiki = "yes"\n'])
def test_a_project_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    project(tmp_path, text)

    with pytest.raises(ConfigurationError, match=r"pyproject\.toml"):
        load_settings({}, directory=tmp_path)


def test_variables_that_are_no_settings_are_found_with_what_may_be_meant() -> None:
    environ = {"AIKI_PARTITION": "8", "AIKI_PARTITIONS": "8", "AIKI_TEST_WORLD": "x", "AIKI_DEBUG": "1", "OTHER": ""}

    assert unknown_variables(environ) == {"AIKI_PARTITION": "AIKI_PARTITIONS", "AIKI_TEST_WORLD": None}


@pytest.mark.parametrize("url", ["http://ada:s3cret@host", "ada:s3cret@host", "ftp://ada:p@s3cret@host"])
def test_no_password_is_shown_in_an_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"AIKI_AMQP_URL": url})

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_password_is_shown_by_the_settings_themselves() -> None:
    settings = load_settings(
        {
            "AIKI_AMQP_URL": "amqp://ada:s3cret@host",
            "AIKI_MONGODB_URL": "mongodb://ada:s3cret@host",
            "AIKI_MANAGEMENT_URL": "http://ada:s3cret@host:15672",
        }
    )

    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://localhost", "amqp://localhost"),
        ("amqp://ada@host:5672/shop", "amqp://ada@host:5672/shop"),
        ("amqp://ada:pass@host:5672/shop", "amqp://ada:***@host:5672/shop"),
        ("mongodb://ada:p@ss@a:1,b:2/?x=y", "mongodb://ada:***@a:1,b:2/?x=y"),
        ("cannot reach amqp://ada:pw@host today", "cannot reach amqp://ada:***@host today"),
        (
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:abc",
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:***",
        ),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize("value", ["10ms", "2d"])
def test_a_lease_is_neither_shorter_than_a_hiccup_nor_longer_than_anybody_waits(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"AIKI_LEASE is '{value}'"):
        load_settings({"AIKI_LEASE": value}, directory=tmp_path)
