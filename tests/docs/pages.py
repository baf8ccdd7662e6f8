"""The pages of the documentation, and what stands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "PAGES", "README", "ROOT", "Block", "Page", "page"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: what the fence says it is, what is in it, and where."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


class Page:
    """One page."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = str(file.relative_to(ROOT))
        self.text = file.read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return self.name

    @property
    def blocks(self) -> list[Block]:
        """All fenced blocks, in order."""
        return [self._block(match) for match in _FENCE.finditer(self.text)]

    def _block(self, match: re.Match[str]) -> Block:
        language, *words = match["info"].split() or [""]
        return Block(language, tuple(words), match["text"], self.text.count("\n", 0, match.start("text")) + 1)

    @property
    def prose(self) -> str:
        """The page without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        """Where the links lead."""
        return [match["target"] for match in _LINK.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """What can stand after the # of a link to this page, as GitHub makes it."""
        titles = (match["title"].lower() for match in _HEADING.finditer(self.prose))
        return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}

    def commands(self, *words: str) -> list[str]:
        """The command lines of the console blocks whose fence has *words*, joined where they go on."""
        lines: list[str] = []
        for block in self.blocks:
            if block.language != "console" or not set(words) <= set(block.words):
                continue
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    lines.append(line[2:])
                elif line.startswith("> "):
                    lines[-1] += "\n" + line[2:]
        return lines


PAGES = [Page(file) for file in (README, *sorted(DOCS.rglob("*.md")))]


def page(name: str) -> Page:
    """Find a page by the name of its file under docs/."""
    return Page(DOCS / name)
