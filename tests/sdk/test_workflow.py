"""Workflows as they are defined, started and registered."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from aiki.engine.payload import Payload
from aiki.errors import (
    ConfigurationError,
    DuplicateNameError,
    InvalidArgumentsError,
    InvalidOptionError,
    UnknownTaskError,
    UnknownWorkflowError,
)
from aiki.sdk.handle import Handle
from aiki.sdk.options import WorkflowOptions
from aiki.sdk.registry import Registry
from aiki.sdk.run import Run
from aiki.sdk.task import task
from aiki.sdk.workflow import Workflow, workflow


@workflow(version="1.2.0")
async def user_onboarding(run: Run, recipient: str, steps: int = 3) -> str:
    """Welcome somebody."""
    return recipient * steps


@workflow
async def one_argument(run: Run, n: int) -> int:
    return n


def one() -> int:
    return 1


def two() -> int:
    return 2


class Notebook:
    """A client that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Workflow[..., Any], list[Payload], WorkflowOptions]] = []

    async def enqueue_workflow(
        self, workflow: Workflow[..., Any], payload: Payload, options: WorkflowOptions
    ) -> Handle[Any]:
        self.asked.append((workflow, [payload], options))
        return cast(Handle[Any], object())

    async def enqueue_workflows(
        self, workflow: Workflow[..., Any], payloads: Sequence[Payload], options: WorkflowOptions
    ) -> list[Handle[Any]]:
        self.asked.append((workflow, list(payloads), options))
        return [cast(Handle[Any], object()) for _ in payloads]


class TestDefining:
    def test_it_has_a_name_a_version_and_a_queue(self) -> None:
        assert user_onboarding.name == "user-onboarding"
        assert user_onboarding.queue == "user-onboarding@1.2.0"
        assert one_argument.version == "1.0.0"
        assert user_onboarding.__doc__ == "Welcome somebody."

    def test_a_plain_function_is_no_workflow(self) -> None:
        with pytest.raises(ConfigurationError, match="async def"):
            workflow(cast(Any, one))

    def test_a_workflow_takes_a_run(self) -> None:
        async def without() -> None: ...

        with pytest.raises(ConfigurationError, match="takes no run"):
            workflow(cast(Any, without))

    async def test_called_directly_it_is_the_plain_function(self) -> None:
        assert await one_argument(cast(Run, None), 7) == 7


class TestOptions:
    def test_with_options_makes_a_copy(self) -> None:
        copy = user_onboarding.with_options(
            idempotency_key="k",
            on_conflict="use_existing",
            confirm="stored",
            delay=timedelta(minutes=1),
            priority=3,
            tags=["a", "b", "a"],
            retention=3600,
            timeout=60,
            recoveries_max=0,
        )

        assert user_onboarding.options == WorkflowOptions()
        assert copy.options == WorkflowOptions(
            idempotency_key="k",
            on_conflict="use_existing",
            confirm="stored",
            delay=60.0,
            priority=3,
            tags=("a", "b"),
            retention=3600.0,
            timeout=60.0,
            recoveries_max=0,
        )
        assert copy.queue == user_onboarding.queue
        assert copy.with_options(idempotency_key=None).options.idempotency_key is None

    @pytest.mark.parametrize(
        "options",
        [
            {"idempotency_key": ""},
            {"idempotency_key": "x" * 600},
            {"idempotency_key": 7},
            {"on_conflict": "ignore"},
            {"confirm": "never"},
            {"delay": -1},
            {"priority": -1},
            {"priority": 1.5},
            {"priority": True},
            {"tags": "one-string"},
            {"tags": [""]},
            {"tags": [7]},
            {"tags": [f"{n}" for n in range(100)]},
            {"retention": -5},
            {"timeout": 0},
            {"timeout": "soon"},
            {"recoveries_max": -1},
        ],
        ids=repr,
    )
    def test_values_that_make_no_sense_are_refused_where_they_are_written(self, options: dict[str, Any]) -> None:
        (option,) = options

        with pytest.raises(InvalidOptionError, match=f"^{option} must be") as raised:
            user_onboarding.with_options(**options)

        assert raised.value.option == option


class TestStarting:
    async def test_arguments_are_checked_and_handed_to_the_client(self) -> None:
        client = Notebook()

        await user_onboarding.with_options(priority=5).enqueue(client, "ada", steps=2)

        ((asked, payloads, options),) = client.asked
        assert asked.name == "user-onboarding"
        assert payloads == ['{"recipient":"ada","steps":2}']
        assert options.priority == 5

    async def test_wrong_arguments_send_nothing(self) -> None:
        client = Notebook()

        with pytest.raises(InvalidArgumentsError, match="workflow 'user-onboarding'"):
            await user_onboarding.enqueue(client, 5)  # type: ignore[arg-type]

        assert not client.asked

    async def test_many_are_sent_in_one_go(self) -> None:
        client = Notebook()

        handles = await one_argument.enqueue_many(client, [1, 2])
        await user_onboarding.enqueue_many(client, [user_onboarding.arguments("a", steps=1), "b"])

        assert len(handles) == 2
        assert [payloads for _, payloads, _ in client.asked] == [
            ['{"n":1}', '{"n":2}'],
            ['{"recipient":"a","steps":1}', '{"recipient":"b","steps":3}'],
        ]

    async def test_one_wrong_input_among_many_sends_none(self) -> None:
        client = Notebook()

        with pytest.raises(InvalidArgumentsError):
            await one_argument.enqueue_many(client, [1, "two"])

        assert not client.asked

    async def test_one_idempotency_key_cannot_stand_for_many(self) -> None:
        with pytest.raises(InvalidOptionError, match="idempotency_key"):
            await one_argument.with_options(idempotency_key="k").enqueue_many(Notebook(), [1])


class TestRegistry:
    def test_versions_live_side_by_side(self) -> None:
        async def function(run: Run) -> None: ...

        old, new = workflow(name="w", version="1")(function), workflow(name="w", version="2")(function)
        registry = Registry(old, new)

        assert registry.workflow("w", "1") is old
        assert registry.workflow("w", "2") is new
        assert registry.queues == ("w@1", "w@2")

    def test_what_is_not_there_is_named_together_with_what_is(self) -> None:
        registry = Registry(one_argument)

        with pytest.raises(UnknownWorkflowError, match=r"'one-argument@9'.*") as raised:
            registry.workflow("one-argument", "9")
        assert "'one-argument@1.0.0'" in str(raised.value)
        with pytest.raises(UnknownTaskError, match="'nothing'"):
            registry.task("nothing")

    def test_two_of_one_name_are_refused(self) -> None:
        async def another(run: Run, n: int) -> int:
            return n

        with pytest.raises(DuplicateNameError, match=r"one-argument@1\.0\.0"):
            Registry(one_argument, workflow(name="one-argument")(another))
        with pytest.raises(DuplicateNameError, match="'t'"):
            Registry(task(name="t")(one), task(name="t")(two))

    def test_a_copy_with_other_options_is_the_same(self) -> None:
        assert Registry(one_argument, one_argument.with_options(priority=9)).workflows == (one_argument,)

    def test_tasks_bring_their_queues(self) -> None:
        registry = Registry(task(name="t", queue="gpu")(one), task(name="u")(two))

        assert registry.queues == ("gpu",)
        assert [each.name for each in registry.tasks] == ["t", "u"]

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="neither a workflow nor a task"):
            Registry(print)  # type: ignore[arg-type]

    def test_annotations_are_looked_at_early(self) -> None:
        async def odd(run: Run, value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(ConfigurationError, match="Nowhere"):
            Registry(workflow(odd))
