"""Signatures as data: arguments and results, checked by pydantic, to canonical JSON and back.

Arguments travel as one JSON object by the name of the parameter. Both directions
go through the annotations, so a workflow and a task always see values of the types
that they declare, and a mistake shows where it is made and before anything is sent.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, get_type_hints

from pydantic import JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from aiki.engine.payload import Payload, dump_payload, load_payload
from aiki.errors import (
    ConfigurationError,
    InvalidArgumentsError,
    PayloadError,
    PayloadTooLargeError,
    RecordMismatchError,
    ResultNotSerialisableError,
    shortened,
)

__all__ = ["Signature", "load_as"]

_MISSING = object()

_PLAIN = frozenset({int, bool, str})

# The beginning of an escape that canonical JSON has for nothing else.
_LONE_SURROGATE = "\\ud"


class Signature:
    """The parameters of a task or a workflow (without the one that is injected), and its result."""

    def __init__(self, function: Callable[..., Any], *, what: str, injected: int) -> None:
        """*injected* is the number of leading parameters that the caller does not give.

        Raises:
            ConfigurationError: the function has parameters that cannot be named in a JSON object.
        """
        self._function = function
        self._what = what
        self._parameters = tuple(inspect.signature(function).parameters.values())[injected:]
        for parameter in self._parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError(
                    f"{what} cannot have the parameter {str(parameter)!r}",
                    hint="arguments are recorded by name: write plain parameters, and a list or dict for many values",
                )
        self._names = tuple(parameter.name for parameter in self._parameters)
        self._name_set = frozenset(self._names)
        self._positional = tuple(p.name for p in self._parameters if p.kind is not p.KEYWORD_ONLY)
        self._defaults = {p.name: p.default for p in self._parameters if p.default is not p.empty}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in order."""
        return self._names

    def prepare(self) -> None:
        """Build everything that is otherwise built at the first call, so that mistakes show early.

        Raises:
            ConfigurationError: an annotation is nothing that pydantic can work with.
        """
        _ = self._types, self._result

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        try:
            return get_type_hints(self._function, include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigurationError(
                f"the annotations of {self._what} cannot be read: {error}",
                hint="import or define what they name before the first use",
            ) from error

    @cached_property
    def _types(self) -> Mapping[str, "_Type"]:
        return {name: self._type(name) for name in self._names}

    @cached_property
    def _result(self) -> "_Type":
        return self._type("return")

    def _type(self, name: str) -> "_Type":
        if name not in self._hints:
            return _JSON
        return _type_of(self._hints[name], f"the annotation of {name!r} in {self._what}")

    def dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Payload:
        """Check arguments and write them as a JSON object by name.

        Raises:
            InvalidArgumentsError: one is missing, unexpected, of a wrong type, or cannot be written as JSON.
            PayloadTooLargeError: they are too long.
        """
        given = self._bind(args, kwargs)
        problems: list[tuple[str, str, object]] = []
        dumped: dict[str, Any] = {}
        for name, kind in self._types.items():
            value = given[name]
            try:
                dumped[name] = kind.dump(value)
            except ValidationError as error:
                problems.extend(_problems(name, error))
            except (PydanticSerializationError, ValueError) as error:
                problems.append((name, f"input should be something that JSON can say ({error})", value))
        if problems:
            raise InvalidArgumentsError(self._what, problems)
        return self._dump_arguments(dumped)

    def _dump_arguments(self, dumped: Mapping[str, Any]) -> Payload:
        try:
            return dump_payload(dumped, what=f"input of {self._what}")
        except PayloadTooLargeError:
            raise
        except PayloadError as error:
            name = next(iter(dumped)) if len(dumped) == 1 else "arguments"
            raise InvalidArgumentsError(
                self._what, [(name, f"input should be something that JSON can say ({error.message})", dumped)]
            ) from error

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        given = {**self._defaults, **kwargs, **dict(zip(self._positional, args, strict=False))}
        if given.keys() == self._name_set and len(args) <= len(self._positional):
            twice = [name for name in self._positional[: len(args)] if name in kwargs] if kwargs else ()
            if not twice:
                return given
        raise InvalidArgumentsError(self._what, self._binding_problems(args, kwargs))

    def _binding_problems(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, str, object]]:
        problems: list[tuple[str, str, object]] = []
        taken = self._positional[: len(args)]
        extra = args[len(self._positional) :]
        if extra:
            problems.append(("arguments", f"at most {len(self._positional)} are taken by position", extra))
        for name, value in kwargs.items():
            if name not in self._names:
                problems.append((name, "there is no such parameter", value))
            elif name in taken:
                problems.append((name, "only one value is taken", value))
        known = {*taken, *kwargs, *self._defaults}
        return problems + [(name, "a value is required", _Nothing()) for name in self._names if name not in known]

    def load(self, payload: Payload) -> dict[str, Any]:
        """Read arguments back, as keyword arguments of the function.

        What has a default now and was not recorded gets the default.

        Raises:
            RecordMismatchError: the payload was written for another signature.
        """
        recorded = load_payload(payload)
        if not isinstance(recorded, dict):
            raise RecordMismatchError(f"the input of {self._what}", f"expected an object, got {shortened(recorded)}")
        unknown = [name for name in recorded if name not in self._types]
        if unknown:
            raise RecordMismatchError(f"the input of {self._what}", f"it has no parameter {', '.join(unknown)}")
        return {name: self._load_argument(name, recorded) for name in self._names}

    def _load_argument(self, name: str, recorded: Mapping[str, Any]) -> Any:
        value = recorded.get(name, _MISSING)
        if value is _MISSING:
            if name not in self._defaults:
                raise RecordMismatchError(f"the input of {self._what}", f"there is no value for {name!r}")
            return self._defaults[name]
        kind = self._types[name]
        if kind.is_plain(value):
            return value
        return _load(kind, dump_payload(value), f"argument {name!r} of {self._what}")

    def dump_result(self, value: Any) -> Payload:
        """Check a result against the annotation and write it as JSON.

        Raises:
            ResultNotSerialisableError: it does not fit, or JSON cannot say it.
            PayloadTooLargeError: it is too long.
        """
        try:
            return dump_payload(self._result.dump(value), what=f"result of {self._what}")
        except ValidationError as error:
            said = "; ".join(f"{where}: {want}, got {shortened(got)}" for where, want, got in _problems("", error))
            raise ResultNotSerialisableError(self._what, said) from error
        except PayloadTooLargeError:
            raise
        except PayloadError as error:
            raise ResultNotSerialisableError(self._what, error.message) from error
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise ResultNotSerialisableError(self._what, str(error)) from error

    def load_result(self, payload: Payload) -> Any:
        """Read a recorded result as the annotation says.

        Raises:
            RecordMismatchError: it was written for another annotation.
        """
        return _load(self._result, payload, f"the recorded result of {self._what}")


class _Type:
    """An annotation: checks values of it, writes them as JSON's own types, and reads them back."""

    def __init__(self, annotation: Any) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self._annotation = annotation
        # Straight to the core: the adapter's own methods take as long again as checking a number does.
        self._validate = adapter.validator.validate_python
        self._validate_json = adapter.validator.validate_json
        self._serialise = adapter.serializer.to_python

    def is_plain(self, value: Any) -> bool:
        """Whether *value* is what its JSON is, to the letter: then there is nothing to check or to convert."""
        kind = type(value)
        return kind is self._annotation and kind in _PLAIN

    def dump(self, value: Any) -> Any:
        """Check *value* and give it in JSON's own types. Raises what pydantic raises."""
        if self.is_plain(value):
            return value
        return self._serialise(self._validate(value), mode="json", warnings="error")

    def load(self, payload: Payload) -> Any:
        """Read what was dumped. Raises what pydantic raises."""
        if self is _JSON:
            return load_payload(payload)
        if _LONE_SURROGATE in payload:
            # JSON can say it, and pydantic's reader cannot read it.
            return self._validate(load_payload(payload))
        return self._validate_json(payload)


_JSON = _Type(JsonValue)


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


def load_as(annotation: Any, payload: Payload, what: str) -> Any:
    """Read *payload* as *annotation* says; *what* names it in errors.

    Raises:
        RecordMismatchError: it cannot be read so.
        ConfigurationError: nothing can.
    """
    make: Callable[[Any], _Type] = _known_type
    try:
        hash(annotation)
    except TypeError:  # Some metadata in it has none.
        make = _Type
    return _load(_type_of(annotation, f"the type of {what}", make), payload, what)


# Making one takes a hundred times as long as using it, and every replay asks for it again.
_known_type = lru_cache(maxsize=256)(_Type)


def _type_of(annotation: Any, what: str, make: Callable[[Any], _Type] = _Type) -> _Type:
    try:
        return make(annotation)
    except PydanticUserError as error:
        raise ConfigurationError(
            f"{what} is nothing that can be read from JSON: {error.message}",
            hint="use types that pydantic knows: dataclasses, models, TypedDicts, builtins",
        ) from error


def _load(kind: _Type, payload: Payload, what: str) -> Any:
    try:
        return kind.load(payload)
    except ValidationError as error:
        said = "; ".join(f"{where}: {want}, got {shortened(got)}" for where, want, got in _problems("", error))
        raise RecordMismatchError(what, said) from error


def _problems(name: str, error: ValidationError) -> list[tuple[str, str, object]]:
    found = error.errors(include_url=False, include_context=False)
    return [(_path(name, problem["loc"]), _lower(problem["msg"]), problem["input"]) for problem in found[:10]]


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _path(name: str, location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in ((name, *location) if name else location)) or "it"
