"""Changing values that do not change: a frozen dataclass with other contents, in a fraction of the usual time.

``dataclasses.replace`` calls the constructor, which sets each field through three layers: with the forty fields
of a run that is a tenth of what a run costs an orchestrator (docs/decisions/0101). This one copies the slots.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["replace"]


if TYPE_CHECKING:
    from dataclasses import replace  # So that the names and types of the changes are checked.
else:

    def replace(value, /, **changes):
        """Make a copy of *value*, a dataclass with slots and without ``__post_init__``, with *changes*."""
        form = type(value)
        setters, contents, by_name = _slots(form)
        changed = object.__new__(form)
        for setter, content in zip(setters, contents(value), strict=True):
            setter(changed, content)
        for name, content in changes.items():
            if name not in by_name:
                raise TypeError(f"{form.__name__} has no field {name!r}")
            by_name[name](changed, content)
        return changed


_Setter = Callable[[Any, Any], None]


@cache
def _slots(form: type[Any]) -> tuple[tuple[_Setter, ...], Callable[[Any], Any], dict[str, _Setter]]:
    """Find what sets each slot of *form* past its being frozen, and what reads all of them."""
    if not is_dataclass(form) or hasattr(form, "__post_init__") or "__slots__" not in form.__dict__:
        raise TypeError(f"{form.__name__} is no dataclass with slots and without __post_init__")
    names = [field.name for field in fields(form)]
    if len(names) < 2:  # Of a single name, attrgetter gives the content itself.
        raise TypeError(f"{form.__name__} has fewer than two fields")
    by_name: dict[str, _Setter] = {name: getattr(form, name).__set__ for name in names}
    return tuple(by_name.values()), attrgetter(*names), by_name
