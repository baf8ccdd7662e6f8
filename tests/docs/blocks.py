"""Executes the Python blocks of a page, one after the other, as a reader would in `python -m asyncio`.

All blocks of a page share one namespace. What a block prints is compared with the block
```` ```text output ```` that follows it, where ``…`` stands for anything.
"""

import ast
import asyncio
import contextlib
import io
import linecache
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from tests.docs.pages import Block, Page

__all__ = ["run_python"]


def run_python(page: Page, *, servers: bool) -> int:
    """Execute the blocks of *page* that need servers, or those that need none; tells how many there were."""
    wanted = [
        (block, expected)
        for block, expected in _with_output(page.blocks)
        if block.language == "python" and ("servers" in block.words) == servers
    ]
    with _module(page) as module:
        for block, expected in wanted:
            printed = _execute(block, page, module)
            if expected is not None:
                _compare(expected, printed, f"{page.name}, line {block.line}")
    return len(wanted)


def _with_output(blocks: list[Block]) -> Iterator[tuple[Block, str | None]]:
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        is_output = following is not None and following.language == "text" and "output" in following.words
        yield block, following.text if is_output and following is not None else None


@contextlib.contextmanager
def _module(page: Page) -> Iterator[ModuleType]:
    # Pydantic and typing look names up in the module of a class, so there has to be one.
    name = re.sub(r"\W", "_", page.name.removesuffix(".md")).lower()
    module = ModuleType(name)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


def _execute(block: Block, page: Page, module: ModuleType) -> str:
    file = f"<{page.name}, line {block.line}>"
    linecache.cache[file] = (len(block.text), None, block.text.splitlines(keepends=True), file)
    code = compile(block.text, file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = eval(code, vars(module))
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    return printed.getvalue()


def _compare(expected: str, printed: str, where: str) -> None:
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (
        f"{where}: expected\n{expected.strip()}\nand it printed\n{printed.strip()}"
    )
