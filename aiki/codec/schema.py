"""What pydantic derives from the engine's dataclasses, tightened for what is sent and kept.

The engine's values are plain frozen dataclasses that know nothing of formats.
Two rules hold wherever they are written, and are laid over the derived schema here:

* a moment is UTC, to the millisecond, and comes back with ``datetime.UTC`` itself
  (equal time zones compare without asking either of them);
* ``type`` is always written, though it has a default: it tells one value from another.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema

__all__ = ["compile_schema"]


def compile_schema(form: Any) -> tuple[SchemaValidator, SchemaSerializer]:
    """Make the validator and the serializer of *form*, anything that pydantic understands."""
    schema = _tighten(TypeAdapter(form).core_schema)
    return SchemaValidator(schema), SchemaSerializer(schema)


def _tighten(node: Any) -> Any:
    """Rebuild a core schema with the rules of this module in it."""
    if isinstance(node, list | tuple):
        return type(node)(_tighten(item) for item in node)
    if not isinstance(node, dict):
        return node
    if node.get("type") == "datetime":
        return _STAMP

    rebuilt = {key: _tighten(value) for key, value in node.items()}
    if (
        rebuilt.get("type") == "dataclass-field"
        and rebuilt["name"] == "type"
        and rebuilt["schema"]["type"] == "default"
    ):
        rebuilt["schema"] = rebuilt["schema"]["schema"]
    return rebuilt


def _stamp(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)


_STAMP = core_schema.no_info_after_validator_function(_stamp, core_schema.datetime_schema(tz_constraint=0))
