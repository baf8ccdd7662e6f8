"""Changing values that do not change: a frozen dataclass with other contents, in a fraction of the usual time.

``dataclasses.replace`` calls the constructor, which sets each field through three layers: with the forty fields
of a run that is a tenth of what a run costs an orchestrator (docs/decisions/0101). This one fills a draft, which has
the same slots and is not frozen, and freezes it by making it one of its class.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

__all__ = ["replace"]


if TYPE_CHECKING:
    from dataclasses import replace  # So that the names and types of the changes are checked.
else:

    def replace(value, /, **changes):
        """Make a copy of *value*, a dataclass with slots and without ``__post_init__``, with *changes*."""
        form = type(value)
        draft = _copier(form)(value)
        for name, content in changes.items():
            try:
                setattr(draft, name, content)
            except AttributeError:
                raise TypeError(f"{form.__name__} has no field {name!r}") from None
        draft.__class__ = form
        return draft


@cache
def _copier(form: type[Any]) -> Callable[[Any], Any]:
    """Make what copies the contents of a *form* into a draft of one.

    It is written out field by field, as the constructor of a dataclass is: the interpreter reads and sets the slots
    of a known class in a few nanoseconds each, and takes ten times that in a loop over names.
    """
    if not is_dataclass(form) or hasattr(form, "__post_init__") or "__slots__" not in form.__dict__:
        raise TypeError(f"{form.__name__} is no dataclass with slots and without __post_init__")
    open_again = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    draft = type(f"{form.__name__}Draft", form.__bases__, {"__slots__": form.__dict__["__slots__"], **open_again})
    lines = [f"    draft.{field.name} = value.{field.name}" for field in fields(form)]
    source = "\n".join(["def copied(value):", "    draft = made(form)", *lines, "    return draft"])
    names: dict[str, Any] = {"made": object.__new__, "form": draft}
    exec(source, names)  # What is written here is the names of a class of ours.
    copied: Callable[[Any], Any] = names["copied"]
    return copied
