"""What may import what. The layers are declared for import-linter, in pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = sorted((ROOT / "aiki" / "engine").rglob("*.py"))

# What the pure core may take from the standard library: none of it does I/O, tells the time or draws numbers.
PURE = {
    "abc", "base64", "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "heapq", "itertools", "json", "keyword", "math", "operator", "re", "string", "types",
    "typing", "unicodedata", "uuid", "zlib",
}  # fmt: skip
# Calls by which a module of the pure list tells the time, draws a number or reads a file after all.
IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "getnode", "open", "print", "input"}


def test_the_layers_hold() -> None:
    # In a process of its own: import-linter disables all loggers that are there, and other tests look at ours.
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

    command = [sys.executable, "-c", lint]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_the_engine_imports_only_itself_and_what_is_pure(path: Path) -> None:
    strangers = {
        name
        for name in imports(path)
        if name.partition(".")[0] not in PURE and not name.startswith(("aiki.engine.", "aiki.errors."))
    }

    assert not strangers


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_the_engine_asks_nobody_for_the_time_or_for_chance(path: Path) -> None:
    assert not IMPURE_CALLS.intersection(calls(path))


@pytest.mark.parametrize("package", ["errors.py", "engine", "ports", "codec", "observability", "sdk", "worker",
                                     "orchestrator", "adapters", "config.py"])  # fmt: skip
def test_nothing_inside_imports_the_public_package(package: str) -> None:
    """`import aiki` brings all layers, so whoever imports it from within turns the layers upside down."""
    place = ROOT / "aiki" / package
    modules = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert modules

    guilty = {str(path.relative_to(ROOT)) for path in modules for name in imports(path) if name == "aiki"}
    guilty |= {
        str(path.relative_to(ROOT))
        for path in modules
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.module == "aiki"
        if any(not is_module(alias.name) for alias in node.names)
    }

    assert not guilty


def test_the_list_of_pure_modules_is_of_the_standard_library() -> None:
    assert sys.stdlib_module_names >= PURE


def imports(path: Path) -> Iterator[str]:
    """What a module imports, down to the name: `from a.b import c` is `a.b.c`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[str]:
    """The last part of the name of everything that a module calls."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield name


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_module(name: str) -> bool:
    return (ROOT / "aiki" / name).is_dir() or (ROOT / "aiki" / f"{name}.py").is_file()
