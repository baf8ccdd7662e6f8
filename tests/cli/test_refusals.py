"""What goes wrong is told in one line with a hint, where it is made."""

import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from aiki.cli.main import aiki as program
from tests.cli.processes import CommandLine

# What processors may spend on a command that has nothing to do.
START_SECONDS_MAX = 0.3


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Find the commands that have no others below them."""
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


LEAVES = list(leaves(program))


def starts_quickly(aiki: CommandLine, *arguments: str) -> bool:
    """Whether *arguments* take little processor time, at least once: a machine that is busy takes more for the same."""
    return any(spent(aiki, *arguments) < START_SECONDS_MAX for _ in range(5))


def spent(aiki: CommandLine, *arguments: str) -> float:
    """Tell how many seconds of processors a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    aiki.does(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_lists_the_commands_and_starts_quickly(aiki: CommandLine) -> None:
    assert "dead-letters" in aiki.does("--help")
    assert starts_quickly(aiki, "--help")


def test_every_command_is_found() -> None:
    assert {("bench",), ("worker",), ("runs", "list"), ("topology", "export")} <= set(LEAVES)


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_command_explains_itself_and_starts_quickly(aiki: CommandLine, command: tuple[str, ...]) -> None:
    assert aiki.does(*command, "--help").startswith(f"Usage: aiki {' '.join(command)}")
    assert starts_quickly(aiki, *command, "--help")


@pytest.mark.parametrize("command", [(), *LEAVES], ids=" ".join)
def test_help_imports_nothing_that_is_slow(command: tuple[str, ...]) -> None:
    code = f"""
import sys
from aiki.cli.main import aiki
aiki({[*command, "--help"]}, standalone_mode=False)
print(*sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert "click" in loaded
    assert not loaded & {"pydantic", "structlog", "rich", "aio_pika", "pymongo", "asyncio"}


def test_an_unknown_command_is_a_usage_error_that_lists_what_there_is(aiki: CommandLine) -> None:
    done = aiki.run("wrker")

    assert done.returncode == 2
    assert "worker" in done.stderr


def test_an_unknown_workflow_is_refused_with_what_there_is(aiki: CommandLine) -> None:
    refused = aiki.refuses("enqueue", "ordr", "{}")

    assert "the app has no workflow 'ordr'" in refused
    assert "order@1.0.0" in refused


def test_a_queue_that_the_app_does_not_have_is_refused(aiki: CommandLine) -> None:
    refused = aiki.refuses("worker", "--queue", "order@2.0.0")

    assert "the app has nothing for queue 'order@2.0.0'" in refused
    assert "order@1.0.0" in refused


def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(aiki: CommandLine) -> None:
    assert "item" in aiki.refuses("enqueue", "order", '{"amount": 1}')
    assert "amount" in aiki.refuses("enqueue", "order", '{"item": "book", "amount": "many"}')


def test_what_is_no_json_is_a_usage_error(aiki: CommandLine) -> None:
    done = aiki.run("enqueue", "order", "{item")

    assert done.returncode == 2
    assert "no JSON" in done.stderr


def test_without_a_broker_the_likely_mistake_is_named(aiki: CommandLine) -> None:
    refused = aiki.refuses("runs", "list")

    assert "RabbitMQ" in refused
    assert "AIKI_AMQP_URL is not set, and no `aiki dev` is running" in refused


def test_a_bench_without_a_broker_is_told_that_it_needs_none(aiki: CommandLine) -> None:
    refused = aiki.refuses("bench")

    assert "RabbitMQ" in refused
    assert "AIKI_AMQP_URL is not set; `aiki bench --embedded` measures the engine" in refused
    assert "--embedded" not in aiki.refuses("bench", AIKI_AMQP_URL="amqp://localhost:1")


def test_a_wrong_broker_url_hides_its_password(aiki: CommandLine) -> None:
    for url in ("amqp://ada:s3cret@localhost:1/shop", "http://ada:s3cret@localhost"):
        for command in (["runs", "list"], ["worker"], ["topology", "check"]):
            done = aiki.run(*command, AIKI_AMQP_URL=url)
            assert done.returncode == 1
            assert "s3cret" not in done.stdout + done.stderr


def test_a_wrong_setting_is_named_with_what_is_allowed(aiki: CommandLine) -> None:
    refused = aiki.refuses("worker", AIKI_CONCURRENCY="lots")

    assert "error: AIKI_CONCURRENCY is 'lots', which cannot be used" in refused
    assert "hint: allowed: a whole number from 1 to 10000" in refused


def test_an_app_that_fails_to_import_is_shown_with_the_line_that_did(aiki: CommandLine) -> None:
    (aiki.folder / "broken.py").write_text("import os\nnumber = int('three')\n", encoding="utf-8")

    refused = aiki.refuses("worker", "--app", "broken")

    assert "the app 'broken' cannot be imported: ValueError: invalid literal for int()" in refused
    assert "at broken.py:2: number = int('three')" in refused


def test_an_app_that_aiki_itself_refuses_is_shown_with_what_is_allowed(aiki: CommandLine) -> None:
    text = "from aiki import workflow\n@workflow(version='1.0 0')\nasync def buy(run): ...\n"
    (aiki.folder / "broken.py").write_text(text, encoding="utf-8")

    refused = aiki.refuses("worker", "--app", "broken")

    assert "InvalidNameError: '1.0 0' cannot be the name of a version: it contains ' '\n" in refused
    assert "hint: use letters, digits" in refused
    assert "at broken.py:2: @workflow(version='1.0 0')" in refused


def test_an_orchestrator_without_a_store_says_what_to_look_at(aiki: CommandLine) -> None:
    refused = aiki.refuses(
        "orchestrator",
        AIKI_AMQP_URL="amqp://localhost:1",
        AIKI_MONGODB_URL="mongodb://localhost:1/?serverSelectionTimeoutMS=200",
    )

    assert "MongoDB cannot be reached to make its collections: localhost:1" in refused
    assert "is it running, does AIKI_MONGODB_URL name it" in refused


def test_an_app_with_a_mistake_in_its_grammar_is_shown_with_the_line(aiki: CommandLine) -> None:
    (aiki.folder / "broken.py").write_text("import os\ndef (:\n", encoding="utf-8")

    assert "at broken.py:2: def (:" in aiki.refuses("worker", "--app", "broken")


def test_an_app_that_lacks_a_package_is_told_from_one_that_is_not_there(aiki: CommandLine) -> None:
    (aiki.folder / "lacking.py").write_text("import not_there_at_all\n", encoding="utf-8")

    assert "there is no module 'nowhere'" in aiki.refuses("worker", "--app", "nowhere")
    assert "at lacking.py:1: import not_there_at_all" in aiki.refuses("worker", "--app", "lacking")


def test_an_app_without_workflows_is_refused(aiki: CommandLine) -> None:
    (aiki.folder / "empty.py").write_text("", encoding="utf-8")

    assert "there is no workflow in empty" in aiki.refuses("worker", "--app", "empty")
    assert "has no 'workflows'" in aiki.refuses("worker", "--app", "empty:workflows")


def test_without_any_app_the_hint_says_how_to_name_one(aiki: CommandLine) -> None:
    (aiki.folder / "pyproject.toml").write_text("[tool.aiki]\n", encoding="utf-8")

    assert "--app shop.workflows" in aiki.refuses("dev")
    assert "--version" in aiki.refuses("enqueue", "order", "{}")


def test_a_traceback_is_shown_only_to_who_debugs(aiki: CommandLine) -> None:
    done = aiki.run("enqueue", "ordr", "{}", AIKI_DEBUG="1")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_reader_that_has_seen_enough_causes_no_noise(aiki: CommandLine) -> None:
    done = subprocess.run(
        f"{sys.executable} -m aiki topology export | head -1",
        shell=True,
        cwd=aiki.folder,
        env=aiki.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "{\n"
    assert done.stderr == ""
