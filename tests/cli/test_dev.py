"""`aiki dev`, and what other processes do with it: the embedded engine as people use it."""

import json
import signal

import pytest

from aiki.engine.payload import digest, dump_payload
from tests.cli.processes import CommandLine, Service, eventually


@pytest.fixture
def dev(aiki: CommandLine) -> Service:
    service = aiki.start("dev")
    service.says("aiki dev: ready")
    return service


def notes(aiki: CommandLine) -> list[str]:
    file = aiki.folder / "notes.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def until_noted(aiki: CommandLine, text: str) -> None:
    eventually(lambda: text in notes(aiki), f"{text!r} in {notes(aiki)}")


@pytest.mark.usefixtures("dev")
def test_a_run_is_enqueued_executed_and_shown_with_its_attempts(aiki: CommandLine) -> None:
    result = json.loads(aiki.does("enqueue", "order", '{"item": "book"}', "--wait"))
    assert result == {"charged": "charged 3", "packed": "packed book", "sent": "sent"}

    shown = aiki.tells("runs", "show")

    assert shown["run"]["status"] == "completed"
    assert shown["run"]["input"] == {"item": "book", "amount": 3}
    steps = {step["name"]: step for step in shown["steps"]}
    assert steps["charge"]["attempts"] == 3
    assert [s["outcome"] for s in steps["charge"]["segments"]] == ["failed", "waiting", "failed", "waiting", "done"]
    assert steps["pack"]["attempts"] == 1
    drawn = aiki.does("runs", "show", shown["run"]["id"])
    assert "ConnectionError: the bank does not answer" in drawn


@pytest.mark.usefixtures("dev")
def test_a_run_that_fails_fails_the_command_that_waits_for_it(aiki: CommandLine) -> None:
    done = aiki.run("enqueue", "failing", "--wait", "--json")

    assert done.returncode == 1
    run = json.loads(done.stdout)
    assert run["status"] == "failed"
    assert "boom [not markup]" in json.dumps(run["failure"])
    assert "boom [not markup]" in aiki.does("runs", "show", run["id"])


@pytest.mark.usefixtures("dev")
def test_a_failed_run_goes_on_after_the_fix(aiki: CommandLine) -> None:
    run_id = json.loads(aiki.run("enqueue", "failing", "--wait", "--json").stdout)["id"]
    (aiki.folder / "mended").touch()

    aiki.does("runs", "retry", run_id)

    aiki.becomes(run_id, "completed")
    (step,) = aiki.tells("runs", "show", run_id)["steps"]
    assert step["segments"][0]["outcome"] == "void"


@pytest.mark.usefixtures("dev")
def test_a_run_waits_for_its_signal_and_is_watched_to_its_end(aiki: CommandLine) -> None:
    run_id = aiki.does("enqueue", "approval", '"ada"')
    aiki.becomes(run_id, "awaiting_signal")
    watching = aiki.start("runs", "watch", run_id)
    watching.says('says "asking ada"')

    aiki.does("signal", run_id, "approved", '"yes"')

    assert watching.ends() == 0
    assert 'completed        "yes"' in watching.output


@pytest.mark.usefixtures("dev")
def test_a_sleeping_run_is_paused_resumed_woken_and_one_is_cancelled(aiki: CommandLine) -> None:
    first, second = aiki.does("enqueue", "nap"), aiki.does("enqueue", "nap", "--tag", "second")
    aiki.becomes(first, "sleeping")
    aiki.becomes(second, "sleeping")

    aiki.does("runs", "pause", first)
    aiki.becomes(first, "paused")
    aiki.does("runs", "resume", first)
    aiki.becomes(first, "sleeping")
    aiki.does("runs", "wake", first)
    aiki.becomes(first, "completed")
    aiki.does("runs", "cancel", second)
    aiki.becomes(second, "cancelled")

    assert [run["id"] for run in aiki.tells("runs", "list", "--status", "cancelled")["runs"]] == [second]
    assert [run["id"] for run in aiki.tells("runs", "list", "nap", "--tag", "second")["runs"]] == [second]
    assert [run["id"] for run in aiki.tells("runs", "list", "--limit", "1")["runs"]] == [second]
    assert aiki.run("runs", "watch", second).returncode == 1


@pytest.mark.usefixtures("dev")
def test_a_list_continues_where_it_ended(aiki: CommandLine) -> None:
    started = {aiki.does("enqueue", "nap") for _ in range(3)}

    first = aiki.tells("runs", "list", "--limit", "2")
    rest = aiki.tells("runs", "list", "--limit", "2", "--cursor", first["cursor"])

    assert {run["id"] for page in (first, rest) for run in page["runs"]} == started
    assert rest["cursor"] is None


@pytest.mark.usefixtures("dev")
def test_the_same_key_stands_for_the_same_run(aiki: CommandLine) -> None:
    first = aiki.does("enqueue", "nap", "--key", "k")
    assert aiki.does("enqueue", "nap", "--key", "k") == first
    order = aiki.does("enqueue", "approval", '"ada"', "--key", "k")

    refused = aiki.refuses("enqueue", "approval", '"bob"', "--key", "k")

    for who in ("ada", "bob"):
        assert digest(dump_payload({"who": who})) in refused
    assert aiki.does("enqueue", "approval", '"bob"', "--key", "k", "--use-existing") == order


@pytest.mark.usefixtures("dev")
def test_without_the_app_a_version_is_enough(aiki: CommandLine) -> None:
    done = aiki.run("enqueue", "other", '{"anything": 1}', "--version", "2.0", "--json")

    run = aiki.tells("runs", "show", json.loads(done.stdout)["id"])["run"]
    assert (run["workflow"], run["version"], run["input"]) == ("other", "2.0", {"anything": 1})
    doctor = aiki.run("doctor")
    assert doctor.returncode == 1
    assert "1 runs wait in other@2.0, and nobody consumes it" in doctor.stdout


@pytest.mark.usefixtures("dev")
def test_the_input_is_read_from_standard_input(aiki: CommandLine) -> None:
    done = aiki.run("enqueue", "approval", "-", input='{"who": "ada"}')

    assert aiki.tells("runs", "show", done.stdout.strip())["run"]["input"] == {"who": "ada"}


@pytest.mark.usefixtures("dev")
def test_the_doctor_finds_nothing_wrong(aiki: CommandLine) -> None:
    findings = aiki.tells("doctor")["findings"]

    assert {finding["verdict"] for finding in findings} == {"ok"}


def test_a_killed_engine_goes_on_where_it_was(aiki: CommandLine, dev: Service) -> None:
    (aiki.folder / "slow").touch()
    run_id = aiki.does("enqueue", "order", '{"item": "book"}')
    until_noted(aiki, "sending")

    dev.kill()
    (aiki.folder / "slow").unlink()
    aiki.start("dev").says("aiki dev: ready")

    aiki.becomes(run_id, "completed")
    noted = notes(aiki)
    assert sorted(noted) == ["charged 3", "packed book", "sending", "sending", "sent"]


def test_the_first_ctrl_c_lets_tasks_finish(aiki: CommandLine, dev: Service) -> None:
    (aiki.folder / "slow").touch()
    run_id = aiki.does("enqueue", "order", '{"item": "book"}')
    until_noted(aiki, "sending")

    dev.send(signal.SIGINT)
    dev.says("stopping: handing back 1 runs, 30.0s at most")
    (aiki.folder / "slow").unlink()

    assert dev.ends() == 130
    assert "Traceback" not in dev.output
    aiki.start("dev").says("aiki dev: ready")
    aiki.becomes(run_id, "completed")
    assert notes(aiki).count("sending") == 1


def test_the_second_ctrl_c_stops_at_once(aiki: CommandLine, dev: Service) -> None:
    (aiki.folder / "slow").touch()
    aiki.does("enqueue", "order", '{"item": "book"}')
    until_noted(aiki, "sending")

    dev.send(signal.SIGINT)
    dev.says("stopping:")
    dev.send(signal.SIGINT)

    assert dev.ends() == 130
    assert "stopped at once" in dev.output
    assert notes(aiki).count("sent") == 0


def test_when_told_to_terminate_it_ends_well(dev: Service) -> None:
    dev.send(signal.SIGTERM)

    assert dev.ends() == 0
    assert "Traceback" not in dev.output


@pytest.mark.usefixtures("dev")
def test_a_second_engine_on_the_same_file_is_refused(aiki: CommandLine) -> None:
    refused = aiki.refuses("dev")

    assert "dev.db" in refused
    assert "hint:" in refused


def test_a_client_outlives_a_restart_of_the_engine(aiki: CommandLine, dev: Service) -> None:
    run_id = aiki.does("enqueue", "approval", '"ada"')
    aiki.becomes(run_id, "awaiting_signal")
    watching = aiki.start("runs", "watch", run_id)
    watching.says("awaiting_signal")

    dev.kill()
    aiki.start("dev").says("aiki dev: ready")
    aiki.does("signal", run_id, "approved", '"yes"')

    assert watching.ends() == 0
    assert 'completed        "yes"' in watching.output


def test_workers_and_orchestrators_are_refused_by_an_embedded_engine(aiki: CommandLine) -> None:
    for service in ("worker", "orchestrator"):
        refused = aiki.refuses(service, AIKI_AMQP_URL="embedded:.aiki/dev.db")

        assert "embedded engine" in refused


def test_a_run_that_kills_its_process_is_parked_and_goes_on_after_the_fix(aiki: CommandLine) -> None:
    dev = aiki.start("dev")
    dev.says("aiki dev: ready")
    run_id = aiki.does("enqueue", "deadly")
    eventually(lambda: dev.has_ended, "the first death")

    lives = 1
    while dev.has_ended:
        lives += 1
        dev = aiki.start("dev")
        dev.ends_or_says("dead_letter.stored")

    # Three recoveries, one more alone in its worker, and the first death, which nobody may have heard of.
    assert lives <= 7
    assert notes(aiki).count("crashing") == lives - 1
    aiki.becomes(run_id, "dead_lettered")
    (letter,) = aiki.tells("dead-letters", "list")["letters"]
    assert letter["run"] == run_id
    (aiki.folder / "mended").touch()
    aiki.does("dead-letters", "redrive", letter["id"])
    aiki.becomes(run_id, "completed")


@pytest.mark.usefixtures("dev")
def test_ctrl_c_ends_the_wait_for_a_run_and_not_the_run(aiki: CommandLine) -> None:
    waiting = aiki.start("enqueue", "approval", '"Ada"', "--wait")
    waiting.says("run ")
    run_id = waiting.output.split()[1]
    aiki.becomes(run_id, "awaiting_signal")

    waiting.send(signal.SIGINT)

    assert waiting.ends() == 130
    assert f"the run goes on; `aiki runs watch {run_id}` follows it" in waiting.output
    aiki.does("signal", run_id, "approved", '"yes"')
    aiki.becomes(run_id, "completed")
