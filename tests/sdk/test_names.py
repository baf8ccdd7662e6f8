"""Names become queue names and routing keys: what cannot be one is refused where it is written."""

import pytest

from aiki.errors import InvalidNameError
from aiki.sdk.names import kebab_case, queue_name, signal_name, task_name, version_name, workflow_name
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import workflow


@pytest.mark.parametrize(
    ("function", "name"), [("send_email", "send-email"), ("_private", "private"), ("Shout", "shout"), ("a__b", "a--b")]
)
def test_a_function_is_named_in_kebab_case(function: str, name: str) -> None:
    assert kebab_case(function) == name


@pytest.mark.parametrize("name", ["a", "A9", "user-onboarding", "user_onboarding", "9lives", "x" * 100])
def test_letters_digits_and_some_signs_make_a_name(name: str) -> None:
    for check in (workflow_name, task_name, queue_name, version_name, signal_name):
        assert check(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("x" * 101, "101 characters"),
        ("-a", "starts with '-'"),
        ("a b", "' '"),
        ("a@1", "'@'"),
        ("a/b", "'/'"),
        ("a#", "'#'"),
        ("a*", r"'\*'"),
        ("naïve", "'ï'"),
        ("a\n", r"'\\n'"),
    ],
)
def test_everything_else_is_refused_with_the_reason(name: str, reason: str) -> None:
    for check in (workflow_name, task_name, queue_name, version_name, signal_name):
        with pytest.raises(InvalidNameError, match=reason):
            check(name)


def test_a_workflow_is_one_word_of_a_routing_key() -> None:
    with pytest.raises(InvalidNameError, match="routing key"):
        workflow_name("a.b")
    assert task_name("a.b") == "a.b"


def test_queues_of_aiki_itself_are_reserved() -> None:
    with pytest.raises(InvalidNameError, match=r"'aiki\.'"):
        queue_name("aiki.events")


def test_a_wrong_name_is_refused_at_decoration() -> None:
    async def function(run: Run) -> None: ...

    with pytest.raises(InvalidNameError, match="'no good'"):
        workflow(name="no good")(function)
    with pytest.raises(InvalidNameError, match=r"'1\.0 beta'"):
        workflow(version="1.0 beta")(function)
    with pytest.raises(InvalidNameError, match="'no good'"):
        task(name="no good")(function)
    with pytest.raises(InvalidNameError, match=r"aiki\.commands"):
        task(queue="aiki.commands")(function)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidNameError, match="give it a name="):
        task(lambda: None)
    assert task(name="nothing")(lambda: None).name == "nothing"
