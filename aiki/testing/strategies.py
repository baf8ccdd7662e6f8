"""Hypothesis strategies for the engine's values: anything that the types and the promises allow.

They are derived from the dataclasses themselves, so a new event, command, query
or field is drawn from the day it exists.
"""

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from aiki.engine.commands import Command, DeadLetter, Notice, NotifyWorker, WorkerCommand
from aiki.engine.events import Event
from aiki.engine.journal import Failure, JournalEntry
from aiki.engine.payload import Payload, dump_payload
from aiki.engine.queries import Answer, Query
from aiki.engine.state import RunState

__all__ = [
    "answers",
    "commands",
    "dead_letters",
    "events",
    "failures",
    "journal_entries",
    "json_values",
    "moments",
    "notices",
    "payloads",
    "queries",
    "run_states",
    "texts",
    "values_of",
    "worker_commands",
    "worker_notices",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS_MAX = int(timedelta(days=365 * 8000) / timedelta(milliseconds=1))


def texts() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can write."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def moments() -> st.SearchStrategy[datetime]:
    """Any moment of the next eight thousand years: aware, UTC, to the millisecond."""
    return st.integers(0, _MILLISECONDS_MAX).map(lambda count: _EPOCH + timedelta(milliseconds=count))


def json_values() -> st.SearchStrategy[Any]:
    """Whatever JSON can say."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4),
        max_leaves=8,
    )


def payloads() -> st.SearchStrategy[Payload]:
    """Canonical JSON text."""
    return json_values().map(dump_payload)


def failures() -> st.SearchStrategy[Failure]:
    """Failures, with causes at most a few deep."""
    alone = st.builds(
        Failure,
        type=texts(),
        message=texts(),
        traceback=st.none() | texts(),
        task=st.none() | texts(),
        attempts=st.none() | st.integers(1, 99),
    )
    return st.recursive(
        alone, lambda inner: st.builds(Failure, type=texts(), message=texts(), cause=inner), max_leaves=4
    )


@cache
def values_of(form: Any) -> st.SearchStrategy[Any]:
    """Values of *form*: a type of the engine, a union of them, or what their fields are annotated with."""
    if form in _LEAVES:
        return _LEAVES[form]
    if is_dataclass(form):
        return _dataclasses_of(form)
    if isinstance(form, type) and issubclass(form, Enum):
        return st.sampled_from(list(form))
    return _generics_of(form)


def _dataclasses_of(form: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(form)
    return st.builds(form, **{field.name: values_of(hints[field.name]) for field in fields(form)})


def _generics_of(form: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(form), get_args(form)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([values_of(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)


_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    Any: json_values(),
    Failure: failures(),
    Payload: payloads(),
    bool: st.booleans(),
    datetime: moments(),
    float: st.floats(0, 1e9, allow_nan=False),
    int: st.integers(0, 2**53),
    str: texts(),
    type(None): st.none(),
}


def events() -> st.SearchStrategy[Event]:
    """Every type of event."""
    return values_of(Event)


def commands() -> st.SearchStrategy[Command]:
    """Every type of command."""
    return values_of(Command)


def worker_commands() -> st.SearchStrategy[WorkerCommand]:
    """Orders to workers."""
    return values_of(WorkerCommand)


def notices() -> st.SearchStrategy[Notice]:
    """Every type of notice."""
    return values_of(Notice)


def worker_notices() -> st.SearchStrategy[NotifyWorker]:
    """What one worker is told."""
    return values_of(NotifyWorker)


def queries() -> st.SearchStrategy[Query]:
    """Every type of query."""
    return values_of(Query)


def answers() -> st.SearchStrategy[Answer]:
    """Every type of answer."""
    return values_of(Answer)


def dead_letters() -> st.SearchStrategy[DeadLetter]:
    """Dead letters."""
    return values_of(DeadLetter)


def journal_entries() -> st.SearchStrategy[JournalEntry]:
    """Journal entries of every kind, whether or not their fields fit the kind."""
    return values_of(JournalEntry)


def run_states() -> st.SearchStrategy[RunState]:
    """Runs with anything in any field: for formats. What a run can really become is the engine's to say."""
    return values_of(RunState)
