"""The parts of the documentation that are made from the code. `python -m tests.docs.generated` writes them anew."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiki.cli import main as command_line
from aiki.config import Allowed, Settings
from aiki.engine.status import FINAL, SUSPENDED, TRANSITIONS, RunStatus
from broker_topology import PERMISSIONS, topology
from broker_topology.names import COMMAND_QUEUE_PATTERN
from tests.docs.pages import DOCS

__all__ = ["PARTS", "updated"]

_MARK = re.compile(r"(<!-- made from the code: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SUSPENDED = "suspended"


def status_diagram() -> str:
    """Draw the transitions of a run; what suspended runs have in common is drawn once."""
    edges: dict[tuple[str, str], list[str]] = {}
    for source, answers in TRANSITIONS.items():
        for event, targets in answers.items():
            for target in targets:
                edge = (_state(source), _state(target))
                if event not in edges.setdefault(edge, []):
                    edges[edge].append(event)
    lines = ["```mermaid", "stateDiagram-v2", f"    state {_SUSPENDED} {{"]
    lines += [f"        {status.value}" for status in RunStatus if status in SUSPENDED]
    lines += ["    }"]
    order = ["[*]", *(status.value for status in RunStatus), _SUSPENDED]
    for edge in sorted(edges, key=lambda edge: (order.index(edge[0]), order.index(edge[1]))):
        lines.append(f"    {edge[0]} --> {edge[1]}: {', '.join(edges[edge])}")
    lines += [f"    {status.value} --> [*]" for status in RunStatus if status in FINAL]
    return "\n".join([*lines, "```"])


def _state(status: RunStatus | None) -> str:
    if status is None:
        return "[*]"
    return _SUSPENDED if status in SUSPENDED else status.value


def settings() -> str:
    """Tell of every setting what it is, its default, and what it may be."""
    lines = ["| Variable | What it sets | Default | Allowed |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.exclude:
            continue
        allowed = next(part.text for part in field.metadata if isinstance(part, Allowed))
        lines.append(f"| `AIKI_{name.upper()}` | {field.description} | {_default(field.default)} | {_cell(allowed)} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{_span(value) if isinstance(value, timedelta) else value}`"


def _span(value: timedelta) -> str:
    return f"{value.days}d" if value >= timedelta(days=1) else f"{value.total_seconds():g}s"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> str:
    """Tell of every command what it does."""
    lines = ["| Command | What it does |", "|---|---|"]
    groups = {
        "runs": command_line._RUNS,
        "dead-letters": command_line._DEAD_LETTERS,
        "topology": command_line._TOPOLOGY,
    }
    for name, (_where, about) in command_line._COMMANDS.items():
        if name not in groups:
            lines.append(f"| `aiki {name}` | {about} |")
        lines += [f"| `aiki {name} {each}` | {text} |" for each, (_place, text) in groups.get(name, {}).items()]
    return "\n".join(lines)


def exchanges() -> str:
    """List the exchanges that are always there."""
    lines = ["| Exchange | Kind |", "|---|---|"]
    lines += [f"| `{exchange.name}` | {exchange.kind} |" for exchange in topology().exchanges]
    return "\n".join(lines)


def permissions() -> str:
    """List the roles and what each may do; QUEUE stands for any queue of commands."""
    lines = ["| User | configure | write | read |", "|---|---|---|---|"]
    for each in PERMISSIONS:
        patterns = (
            f"`{_cell(pattern.replace(COMMAND_QUEUE_PATTERN, 'QUEUE'))}`"
            for pattern in (each.configure, each.write, each.read)
        )
        lines.append(f"| `aiki-{each.role.value}` | {' | '.join(patterns)} |")
    return "\n".join(lines)


PARTS: Mapping[str, Callable[[], str]] = {
    "status-diagram": status_diagram,
    "settings": settings,
    "commands": commands,
    "exchanges": exchanges,
    "permissions": permissions,
}


def updated(text: str) -> str:
    """Give a page with all of its made parts as the code has them now."""
    return _MARK.sub(lambda match: f"{match[1]}{PARTS[match['name']]()}\n{match[3]}", text)


def _write() -> None:
    for file in (*DOCS.rglob("*.md"), Path("README.md")):
        text = file.read_text(encoding="utf-8")
        if updated(text) != text:
            file.write_text(updated(text), encoding="utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    _write()
