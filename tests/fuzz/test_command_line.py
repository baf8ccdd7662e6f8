"""Whatever is typed: no traceback, an exit code that the documentation names, and what is wrong on standard error."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from aiki.cli import output
from aiki.cli.main import aiki
from tests.fuzz.attempts import fuzzed

NOWHERE = "amqp://guest:s3cret@127.0.0.1:1/"
FINE, FAILED, MISUSED = 0, 1, 2


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No project, no servers, no waiting."""
    (tmp_path / "pyproject.toml").write_text("[tool.aiki]\n", encoding="utf-8")
    (tmp_path / "shop.py").write_text(
        "from aiki import Run, workflow\n"
        "@workflow(version='1')\nasync def order(run: Run, item: str, amount: int = 1) -> None: ...\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIKI_AMQP_URL", NOWHERE)
    # Not a port: what is given up while pymongo connects to one leaves it a socket that nobody closes.
    monkeypatch.setenv("AIKI_MONGODB_URL", "mongodb://%2Fnowhere%2Fmongodb.sock/?serverSelectionTimeoutMS=50")
    monkeypatch.setenv("AIKI_TIMEOUT", "50ms")
    path = list(sys.path)
    yield
    sys.path[:] = path


def check(arguments: list[str], *, typed: str = "") -> click.testing.Result:
    """Run a command in this process; it ends in order, whatever it was given."""
    result = CliRunner().invoke(aiki, arguments, input=typed)
    assert result.exit_code in (FINE, FAILED, MISUSED), (arguments, result.exception)
    assert isinstance(result.exception, SystemExit | None), (arguments, result.exception)
    assert "error: unexpected" not in result.stderr, (arguments, result.stderr)
    assert "Traceback" not in result.output, (arguments, result.output)
    assert "s3cret" not in result.output
    if result.exit_code != FINE:
        assert "rror: " in result.stderr, (arguments, result.stderr)
    return result


COMMANDS = [
    *(["runs", verb] for verb in ("list", "show", "watch", "cancel", "retry", "wake", "pause", "resume")),
    *(["dead-letters", verb] for verb in ("list", "show", "redrive", "discard")),
    *(["topology", verb] for verb in ("check", "export")),
    *(["enqueue"], ["signal"], ["worker"], ["orchestrator"], ["rebuild", "--yes"], ["nonsense"], ["runs", "nonsense"]),
]
OPTIONS = [
    *("--limit", "--cursor", "--since", "--status", "--tag", "--version", "--app", "--queue", "--concurrency", "--key"),
    *("--delay", "--timeout", "--partitions", "--vhost", "--rabbitmq", "--worker", "--health", "--json", "--all", "--"),
    *("--url", "--wait", "--use-existing", "-"),
]
VALUES = [
    *("", "0", "-1", "1e999", "nan", "9" * 5000, "9" * 400 + "d", "9999999d", "30d", "x", "a" * 300, "é🙂", "\x1b[31m"),
    *("{}", "null", "[" * 20_000, '{"item":' + "9" * 5000 + "}", '{"item":NaN}', '"\\ud800"', "{", '{"item":"x"}'),
    *("order", "order@1", "shop", "shop:order", "shop.py", "nowhere", "../x.py", "~nobody/x.py", "4.x", "[/red]"),
    *("amqp://", "amqp://[::1", "embedded:/nowhere/x.db", "embedded:", "http://x", "mongodb://x", "\udcff"),
]


@fuzzed
@given(
    command=st.sampled_from(COMMANDS),
    words=st.lists(st.sampled_from(VALUES) | st.sampled_from(OPTIONS) | st.text(max_size=8), max_size=4),
    typed=st.sampled_from(VALUES[:-1]),  # What no terminal can type is only found among arguments.
)
def test_any_words_are_carried_out_or_refused(command: list[str], words: list[str], typed: str) -> None:
    check([*command, *words], typed=typed)


REFUSED = [
    (MISUSED, ["enqueue", "order", "[" * 100_000], "no JSON"),
    (MISUSED, ["enqueue", "order", '{"item": ' + "9" * 5000 + "}"], "no JSON"),
    (MISUSED, ["enqueue", "order", "-"], "no JSON"),
    (FAILED, ["enqueue", "order", '{"item": 5}', "--app", "shop"], "item"),
    (FAILED, ["enqueue", "order", '{"item": "\\ud800"}', "--app", "shop"], "127.0.0.1:1"),
    (FAILED, ["enqueue", "order", '{"item": "' + "x" * 1_048_576 + '"}', "--app", "shop"], "1,048,576 are allowed"),
    (FAILED, ["enqueue", "order", "{}", "--version", "1", "--key", "k" * 513], "512 characters"),
    (FAILED, ["enqueue", "order", "{}", "--version", "1", "--tag", "t" * 101], "tags"),
    (FAILED, ["enqueue", "order", "{}", "--version", "1", *(f"--tag={n}" for n in range(33))], "tags"),
    (MISUSED, ["enqueue", "order", "{}", "--version", "1", "--delay", "99999999d"], "at most 100 years"),
    (MISUSED, ["enqueue", "order", "{}", "--version", "1", "--delay", "9" * 400 + "d"], "no duration"),
    (MISUSED, ["runs", "list", "--since", "1e999"], "no duration"),
    (MISUSED, ["runs", "list", "--since", "9999999d"], "at most 100 years"),
    (MISUSED, ["runs", "list", "--limit", "9" * 30], "--limit"),
    (MISUSED, ["runs", "list", "--status", "sideways"], "sideways"),
    (MISUSED, ["signal", "run-1", "go", "{"], "no JSON"),
    (FAILED, ["runs", "cancel", "x"], "127.0.0.1:1"),
    (FAILED, ["runs", "list", "--url", "amqp://host:99999"], "cannot connect"),
    (FAILED, ["runs", "list", "--url", "ftp://host"], "allowed: amqp://"),
    (FAILED, ["worker", "--app", "nowhere"], "nowhere"),
    (FAILED, ["worker", "--app", "shop:nothing.at.all"], "nothing.at.all"),
    (FAILED, ["worker", "--app", "~nobody-is-called-so/x.py"], "nobody"),
    (FAILED, ["worker", "--app", ""], "app"),
    (FAILED, ["worker", "--app", ".relative"], "relative"),
    (FAILED, ["worker", "--app", "a\0b.py"], "no file"),
    (FAILED, ["orchestrator", "--health", "[::1]:70000"], "health"),
    (MISUSED, ["topology", "export", "--rabbitmq", "four"], "no version"),
    (MISUSED, ["topology", "export", "--worker", "aiki.events.0"], "reserved"),
    (MISUSED, ["topology", "export", "--partitions", "0"], "--partitions"),
]


@pytest.mark.parametrize(("code", "arguments", "said"), REFUSED, ids=[" ".join(a)[:50] for _, a, _ in REFUSED])
def test_what_cannot_be_is_refused_in_its_own_words(code: int, arguments: list[str], said: str) -> None:
    result = check(arguments)

    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert result.stdout == ""


def test_a_real_process_refuses_bytes_that_are_no_text() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aiki", "runs", "show", b"\xff\xfe"], capture_output=True, check=False, timeout=30
    )

    assert done.returncode == FAILED
    assert b"error: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_text_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066)))

    output.draw(Text(f"before{evil}after[/red]"))

    drawn = capsys.readouterr().out
    assert "before" in drawn
    assert "after[/red]" in drawn
    assert not set(drawn) & (set(evil) - {"\n"})
