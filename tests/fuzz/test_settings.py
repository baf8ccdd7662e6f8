"""Whatever stands in the environment, in pyproject.toml or in a URL is understood, or refused by its name."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiki.adapters.broker.rabbitmq.link import addresses_of
from aiki.adapters.store.mongodb.driver import connect
from aiki.bootstrap import amqp_url
from aiki.config import Settings, load_settings, parse_duration
from aiki.errors import BrokerUnavailableError, ConfigurationError, InvalidNameError, InvalidOptionError
from aiki.sdk import names
from aiki.sdk.options import WorkflowOptions
from tests.fuzz.attempts import attempt, fuzzed

NAMES = sorted(name for name in Settings.model_fields if name != "root")

# No variable can hold a zero or half a character.
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
numbers = st.from_regex(r"[0-9.,:+-]{0,6}[0-9]{0,400}(ms|s|m|h|d|e9|e999)?", fullmatch=True)
URLS = st.from_regex(r"(amqps?|mongodb(\+srv)?|embedded|https?)://?[a-z0-9@:/?=&%\[\],._-]{0,30}", fullmatch=True)


@fuzzed
@given(environment=st.dictionaries(st.sampled_from(NAMES), values | numbers | URLS, max_size=3))
@example(environment={"retention": "9" * 400 + "d"})
@example(environment={"timeout": "1e999"})
@example(environment={"timeout": "nan"})
@example(environment={"data": "~nobody-is-called-so/dev.db"})
@example(environment={"health": "[::1]:" + "9" * 5000})
@example(environment={"partitions": "9" * 5000})
def test_an_environment_gives_settings_or_is_refused_by_name(tmp_path: Path, environment: dict[str, str]) -> None:
    variables = {f"AIKI_{name.upper()}": value for name, value in environment.items()}

    found, refusal = attempt(lambda: load_settings(variables, directory=tmp_path), refusal=ConfigurationError)
    if found is None:
        assert refusal
        assert any(name in refusal.message for name in variables)
        assert refusal.hint
        assert len(str(refusal)) < 2_000
        return
    assert datetime.now(UTC) + found.retention > datetime.now(UTC)
    assert found.data_path().is_absolute()


toml_values: st.SearchStrategy[str] = st.sampled_from(
    [
        *("0", "-1", "1e400", "nan", "inf", "true", "[]", "{}", '""', '"\\u0000"', "[[[]]]", '["", 1]', "'~x/y'"),
        *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "9" * 5000, "[{a=1}]", "0x" + "f" * 99),
        '"' + "9" * 400 + 'd"',
    ]
)


@fuzzed
@given(table=st.dictionaries(st.sampled_from(NAMES), toml_values, max_size=3))
def test_a_project_file_gives_settings_or_is_refused(tmp_path: Path, table: dict[str, str]) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in table.items())
    (tmp_path / "pyproject.toml").write_text(f"[tool.aiki]\n{lines}", encoding="utf-8")

    _, refusal = attempt(lambda: load_settings({}, directory=tmp_path), refusal=ConfigurationError)
    assert refusal is None or "pyproject.toml" in refusal.message


@pytest.mark.parametrize(
    "content",
    [
        *(b"tool = 5", b"tool = [1]", b"[tool]\naiki = 5", b"[[tool.aiki]]\na = 1", b"[tool.aiki]\nroot = 1", b"\xff"),
        *(b"[tool.aiki]\napp = " + b"[" * 5_000, b"a = " + b"9" * 5_000, b"[tool.aiki", b'[tool.aiki]\n"" = 1', b"\0"),
        b'[tool.aiki]\n"' + b"x" * 50_000 + b'" = 1',
    ],
)
def test_a_broken_project_file_is_refused_or_not_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)

    _, refusal = attempt(lambda: load_settings({}, directory=tmp_path), refusal=ConfigurationError)
    assert refusal is None or str(tmp_path) in refusal.message


@fuzzed
@given(text=values | numbers)
def test_a_duration_is_read_or_handed_on(text: str) -> None:
    found = parse_duration(text)

    assert found == text or isinstance(found, timedelta)


@fuzzed
@given(url=values | URLS)
@example(url="amqp://[::1")
@example(url="amqp://host:99999")
@example(url="amqp://host:port")
@example(url="amqp://%ff:%00@host/%zz")
@example(url="amqp://a@b@c,amqp://")
@example(url="amqp://" + "x" * 5_000)
def test_a_broker_url_is_read_or_refused(url: str) -> None:
    addresses, refusal = attempt(lambda: addresses_of(url), refusal=BrokerUnavailableError)
    assert refusal is None or refusal.hint
    assert all(address.url.host and str(address) for address in addresses or ())


@pytest.mark.filterwarnings("ignore::UserWarning")  # So the driver says what it does not take for an option.
@fuzzed
@given(url=URLS.map(lambda url: "mongodb://" + url.partition("://")[2]) | URLS.filter(lambda url: "srv" not in url))
@example(url="mongodb://[::1")
@example(url="mongodb://host:99999")
@example(url="mongodb://a:b@c@d/?w=x")
@example(url="mongodb://host/?serverSelectionTimeoutMS=nan")
def test_a_store_url_is_read_or_refused(url: str) -> None:
    _, refusal = attempt(lambda: connect(url), refusal=ConfigurationError)
    assert refusal is None or refusal.hint


@fuzzed
@given(name=st.text(max_size=120))
@example(name="a" * 100)
@example(name="aiki.x")
@example(name="a\n")
def test_a_name_is_one_or_is_refused(name: str) -> None:
    for check in (names.workflow_name, names.version_name, names.task_name, names.queue_name):
        checked, refusal = attempt(partial(check, name), refusal=InvalidNameError)
        assert (checked is not None and len(checked.encode()) <= 100) or (refusal and refusal.hint)


@fuzzed
@given(
    option=st.sampled_from(["retention", "delay", "timeout", "priority", "tags", "idempotency_key", "recoveries_max"]),
    value=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=600), st.lists(st.text(), max_size=40)),
)
def test_an_option_of_a_run_is_taken_or_refused(option: str, value: Any) -> None:
    given_value: Any = tuple(value if isinstance(value, list) else [value]) if option == "tags" else value
    attempt(lambda: WorkflowOptions(**{option: given_value}), refusal=InvalidOptionError)


def test_the_broker_of_no_setting_is_the_local_one(tmp_path: Path) -> None:
    assert amqp_url(load_settings({}, directory=tmp_path)).startswith("amqp://")
