"""Tasks as they are defined and called."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NewType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from aiki.engine.payload import Payload
from aiki.engine.retry import exponential, fixed, never
from aiki.errors import (
    ConfigurationError,
    InvalidArgumentsError,
    InvalidOptionError,
    PayloadTooLargeError,
    RecordMismatchError,
    ResultNotSerialisableError,
)
from aiki.sdk.context import TaskContext
from aiki.sdk.task import Task, task


class Colour(Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    since: date


class Person(BaseModel):
    name: str
    age: int
    address: Address | None = None


@task
async def greet(name: str, times: int = 1, *, loud: bool = False) -> str:
    return (name * times).upper() if loud else name * times


class TestDefining:
    def test_it_takes_its_name_and_its_documentation_from_the_function(self) -> None:
        @task
        async def send_email(recipient: str) -> None:
            """Send an e-mail."""

        assert send_email.name == "send-email"
        assert send_email.__doc__ == "Send an e-mail."
        assert send_email.__name__ == "send_email"
        assert repr(send_email) == "<task send-email>"

    def test_options_are_kept(self) -> None:
        policy = exponential(max_attempts=5)

        @task(name="other", retry=policy, timeout=timedelta(seconds=5), heartbeat_timeout=2, queue="gpu")
        async def function() -> None: ...

        assert function.name == "other"
        assert function.options.retry == policy
        assert (function.options.timeout, function.options.heartbeat_timeout) == (5.0, 2.0)
        assert function.options.queue == "gpu"

    def test_without_options_a_task_is_tried_once_and_may_take_as_long_as_it_likes(self) -> None:
        assert greet.options.retry == never()
        assert greet.options.timeout is None

    @pytest.mark.parametrize("timeout", [-1, 0, float("inf"), float("nan"), "5", True, timedelta(seconds=-1)])
    def test_a_timeout_that_makes_no_sense_is_refused_where_it_is_written(self, timeout: Any) -> None:
        with pytest.raises(InvalidOptionError, match="timeout must be a timedelta or a number of seconds"):
            task(timeout=timeout)
        with pytest.raises(InvalidOptionError, match="heartbeat_timeout"):
            greet.with_options(heartbeat_timeout=timeout)

    def test_a_retry_policy_has_to_be_one(self) -> None:
        with pytest.raises(InvalidOptionError, match="retry must be a policy"):
            task(retry=3)(lambda: None)  # type: ignore[call-overload]

    def test_with_options_makes_a_copy(self) -> None:
        copy = greet.with_options(retry=fixed(7), timeout=9)
        again = copy.with_options(timeout=None)

        assert greet.options.retry == never()
        assert (copy.options.retry, copy.options.timeout) == (fixed(7), 9)
        assert (again.options.retry, again.options.timeout) == (fixed(7), None)
        assert copy.name == greet.name

    def test_parameters_without_a_name_are_refused(self) -> None:
        for function in (lambda *args: None, lambda **kwargs: None, eval("lambda a, /: None")):
            with pytest.raises(ConfigurationError, match="arguments are recorded by name"):
                task(name="odd")(function)

    def test_an_annotation_that_pydantic_does_not_know_is_found_when_the_task_is_registered(self) -> None:
        class Strange: ...

        @task
        async def odd(value: Strange) -> None: ...

        with pytest.raises(ConfigurationError, match="'value' in task 'odd'"):
            odd.signature.prepare()

    def test_a_name_in_an_annotation_that_does_not_exist_is_found_too(self) -> None:
        @task
        async def odd(value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(ConfigurationError, match="Nowhere"):
            odd.signature.prepare()


class TestCallingItDirectly:
    async def test_outside_a_workflow_it_is_the_plain_function(self) -> None:
        assert await greet("a", times=2, loud=True) == "AA"

    async def test_a_plain_function_is_awaited_all_the_same(self) -> None:
        @task
        def double(n: int) -> int:
            return 2 * n

        assert await double(4) == 8

    async def test_a_context_is_made_up_where_the_function_asks_for_one(self) -> None:
        @task
        async def who(ctx: TaskContext, suffix: str) -> str:
            ctx.heartbeat({"done": 1})
            assert not ctx.cancelled
            ctx.logger.debug("called")
            return f"{ctx.task} {ctx.attempt} {suffix}"

        assert await who("!") == "who 1 !"

    def test_a_context_may_be_asked_for_by_the_name_of_its_class(self) -> None:
        async def function(ctx: "TaskContext", n: int) -> None: ...

        assert Task(function, name="t", options=greet.options).signature.names == ("n",)


class TestArguments:
    def test_they_become_an_object_by_name_however_they_are_passed(self) -> None:
        dump = greet.signature.dump

        assert dump(("a",), {}) == '{"loud":false,"name":"a","times":1}'
        assert dump((), {"name": "a"}) == dump(("a", 1), {"loud": False}) == dump(("a",), {})

    @pytest.mark.parametrize(
        ("args", "kwargs", "field", "message"),
        [
            ((), {}, "name", "name: a value is required"),
            (("a", "many"), {}, "times", "times: input should be a valid integer"),
            ((1,), {}, "name", "name: input should be a valid string"),
            (("a", 1, True), {}, "arguments", "at most 2 are taken by position"),
            (("a",), {"name": "b"}, "name", "name: only one value is taken"),
            (("a",), {"volume": 11}, "volume", "volume: there is no such parameter, got 11"),
        ],
    )
    def test_those_that_do_not_fit_are_refused_and_named(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], field: str, message: str
    ) -> None:
        with pytest.raises(InvalidArgumentsError, match="do not fit task 'greet'") as raised:
            greet.signature.dump(args, kwargs)

        assert raised.value.field == field
        assert message in str(raised.value)

    def test_all_problems_are_listed(self) -> None:
        with pytest.raises(InvalidArgumentsError) as raised:
            greet.signature.dump((5, "x"), {"loud": "maybe"})

        assert [field for field, _, _ in raised.value.problems] == ["name", "times", "loud"]

    def test_a_problem_inside_a_value_is_named_by_its_path(self) -> None:
        @task
        async def register(people: list[Person]) -> None: ...

        with pytest.raises(InvalidArgumentsError) as raised:
            register.signature.dump(([{"name": "Ada", "age": "old"}],), {})

        assert raised.value.field == "people.0.age"

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_json_cannot_say_is_refused(self, value: float) -> None:
        @task
        async def measure(value: float) -> None: ...

        with pytest.raises(InvalidArgumentsError, match="something that JSON can say"):
            measure.signature.dump((value,), {})

    def test_without_annotations_any_json_value_is_taken_and_nothing_else(self) -> None:
        @task
        async def anything(value):  # type: ignore[no-untyped-def]
            return value

        payload = anything.signature.dump(({"a": [1, None, 2.5]},), {})
        assert anything.signature.load(payload) == {"value": {"a": [1, None, 2.5]}}
        for value in (object(), {1: 2}, (1, 2), datetime.now(UTC), b"bytes"):
            with pytest.raises(InvalidArgumentsError):
                anything.signature.dump((value,), {})

    def test_half_of_a_character_is_nothing_to_stumble_over(self) -> None:
        assert greet.signature.load(greet.signature.dump(("\ud800",), {}))["name"] == "\ud800"
        assert greet.signature.load_result(greet.signature.dump_result("a\udfff")) == "a\udfff"

    def test_large_ones_are_refused(self) -> None:
        with pytest.raises(PayloadTooLargeError, match="input of task 'greet'"):
            greet.signature.dump(("x" * 1_100_000,), {})

    def test_they_come_back_as_what_they_are_annotated(self) -> None:
        identifier = NewType("identifier", UUID)

        @task
        async def register(
            who: Person, at: datetime, price: Decimal, colour: Colour, key: identifier, lasts: timedelta, some: set[int]
        ) -> None: ...

        given_values = {
            "who": Person(name="Ada", age=36, address=Address("St James's Square", date(1835, 7, 8))),
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "price": Decimal("0.10"),
            "colour": Colour.RED,
            "key": UUID(int=7),
            "lasts": timedelta(days=1, seconds=2),
            "some": {1, 2},
        }

        assert register.signature.load(register.signature.dump((), given_values)) == given_values

    def test_a_parameter_that_was_added_with_a_default_reads_old_records(self) -> None:
        assert greet.signature.load(Payload('{"name":"a"}')) == {"name": "a", "times": 1, "loud": False}

    @pytest.mark.parametrize("payload", ["{}", '{"name":1}', '{"name":"a","gone":1}', "[]", "7"])
    def test_records_that_do_not_fit_say_so(self, payload: str) -> None:
        with pytest.raises(RecordMismatchError, match="task 'greet'"):
            greet.signature.load(Payload(payload))


class TestResults:
    def test_a_result_that_does_not_fit_names_the_task_and_the_reason(self) -> None:
        with pytest.raises(ResultNotSerialisableError, match=r"result of task 'greet'.*valid string"):
            greet.signature.dump_result(5)

    def test_a_result_that_json_cannot_say_is_refused(self) -> None:
        @task
        async def measure() -> float:
            return float("nan")

        with pytest.raises(ResultNotSerialisableError, match="task 'measure'"):
            measure.signature.dump_result(float("nan"))

    def test_a_result_that_is_too_large_is_refused(self) -> None:
        with pytest.raises(PayloadTooLargeError, match="result of task 'greet'"):
            greet.signature.dump_result("x" * 1_100_000)

    def test_a_recorded_result_of_another_type_says_so(self) -> None:
        with pytest.raises(RecordMismatchError, match="recorded result of task 'greet'"):
            greet.signature.load_result(Payload("5"))

    @given(value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ))  # fmt: skip
    def test_any_json_value_comes_back_as_it_was(self, value: Any) -> None:
        @task
        async def anything():  # type: ignore[no-untyped-def]
            ...

        assert anything.signature.load_result(anything.signature.dump_result(value)) == value


@pytest.mark.parametrize("annotation", [int, bool, str, float])
@given(value=st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["1", "\ud800"]))
def test_the_short_way_of_plain_values_is_the_same_as_that_of_pydantic(annotation: Any, value: Any) -> None:
    async def plain(it):  # type: ignore[no-untyped-def]
        return it

    async def checked(it):  # type: ignore[no-untyped-def]
        return it

    plain.__annotations__ = {"it": annotation, "return": annotation}
    checked.__annotations__ = dict.fromkeys(("it", "return"), Annotated[annotation, "not the type itself"])

    assert _there_and_back(plain, value) == _there_and_back(checked, value)


def _there_and_back(function: Any, value: Any) -> Any:
    signature = task(name="f")(function).signature
    try:
        arguments, result = signature.dump((value,), {}), signature.dump_result(value)
        again = [signature.load(arguments)["it"], signature.load_result(result)]
    except (InvalidArgumentsError, ResultNotSerialisableError, RecordMismatchError) as error:
        return type(error)
    return arguments, result, again, list(map(type, again))


def test_an_attempt_gets_its_arguments_and_its_context() -> None:
    @task
    async def who(ctx: TaskContext, name: str) -> str:
        return f"{ctx.attempt} {name}"

    context = TaskContext(task="who", run_id="r", attempt=3, idempotency_key="k")

    assert asyncio.run(who.invoke(context, Payload('{"name":"a"}'))()) == "3 a"
