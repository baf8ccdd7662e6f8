"""What pydantic derives from the engine's dataclasses, tightened for what is sent and kept.

The engine's values are plain frozen dataclasses that know nothing of formats.
These rules hold wherever they are written, and are laid over the derived schema here:

* a moment is UTC, to the millisecond, and comes back with ``datetime.UTC`` itself
  (equal time zones compare without asking either of them);
* ``type`` is always written, though it has a default: it tells one value from another;
* a number is finite: JSON knows no other, and nothing could be reckoned with it.

What anybody may send is bounded besides, field by field: an id of a mebibyte would be
kept for the life of a run, and written again with every change of it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError, SchemaSerializer, SchemaValidator, core_schema

from aiki.engine.payload import PAYLOAD_BYTES_MAX

__all__ = ["EVENT_LIMITS", "ID_CHARACTERS_MAX", "LETTER_LIMITS", "TAGS_MAX", "TEXT_CHARACTERS_MAX"]
__all__ += ["Limits", "compile_schema"]

ID_CHARACTERS_MAX = 255
"""What fits a property of a message, and is generous for everything that names something."""

MADE_ID_CHARACTERS_MAX = 1_024
"""An id that is made of others and says what it is for."""

TEXT_CHARACTERS_MAX = 64 * 1024
"""More than a worker ever writes of an exception."""

TAGS_MAX = 32

Limits = Mapping[str, int]
"""How many characters a field may have, by its name; ``""`` is for those that are not named."""

_IDS = (
    *("run_id", "incarnation", "dispatch_id", "worker", "client", "workflow", "version", "queue"),
    *("input_hash", "trace", "task", "task_id", "child_id", "source"),
)
_PAYLOADS = ("input", "payload", "result", "note")

EVENT_LIMITS: Limits = {
    "": TEXT_CHARACTERS_MAX,
    **dict.fromkeys(_IDS, ID_CHARACTERS_MAX),
    **dict.fromkeys(_PAYLOADS, PAYLOAD_BYTES_MAX),
    "id": MADE_ID_CHARACTERS_MAX,
    "key": 512,
    "tags": 100,
}
LETTER_LIMITS: Limits = dict.fromkeys(("id", "reason", "origin", "run_id", "workflow"), ID_CHARACTERS_MAX)


def compile_schema(form: Any, limits: Limits | None = None) -> tuple[SchemaValidator, SchemaSerializer]:
    """Make the validator and the serializer of *form*, anything that pydantic understands, with its *limits*."""
    schema = TypeAdapter(form).core_schema
    return SchemaValidator(_tighten(schema, limits or {})), SchemaSerializer(_tighten(schema, None))


def _tighten(node: Any, limits: Limits | None, field: str = "") -> Any:
    """Rebuild a core schema with the rules of this module in it, those for reading if there are *limits*.

    *field* is the one that *node* is part of.
    """
    if isinstance(node, list | tuple):
        return type(node)(_tighten(item, limits, field) for item in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if limits is not None and isinstance(kind, str) and kind in _LEAVES:
        return _LEAVES[kind](node, limits, field)

    if kind == "dataclass-field":
        field = node["name"]
    rebuilt = {key: _tighten(value, limits, field) for key, value in node.items()}
    if kind == "dataclass-field" and field == "type" and rebuilt["schema"]["type"] == "default":
        rebuilt["schema"] = rebuilt["schema"]["schema"]
    if kind == "tuple" and field == "tags" and limits:
        rebuilt["max_length"] = TAGS_MAX
    return rebuilt


def _bounded(node: dict[str, Any], limits: Limits, field: str) -> dict[str, Any]:
    most = limits.get(field, limits.get("", 0))
    return {**node, "max_length": most} if most else node


# Written in C and with UTC itself as the zone: a sixth of what it takes to mend what pydantic reads.
_read = datetime.fromisoformat


def _moment(text: str) -> datetime:
    try:
        moment = _read(text)
    except ValueError:
        raise _no_moment() from None  # What it says quotes the text.
    if moment.tzinfo is not UTC:
        raise _no_moment()
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if moment.microsecond % 1000 else moment


def _no_moment() -> PydanticCustomError:
    return PydanticCustomError("moment", "a moment is a date and a time of day in UTC")


_STAMP = core_schema.no_info_after_validator_function(_moment, core_schema.str_schema(strict=True))

_LEAVES: dict[str, Callable[[dict[str, Any], Limits, str], Any]] = {
    "datetime": lambda _node, _limits, _field: _STAMP,
    "float": lambda node, _limits, _field: {**node, "allow_inf_nan": False},
    "str": _bounded,
}
