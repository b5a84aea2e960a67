"""The documentation as the tests read it: pages, sections, tables, code blocks, inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")))

_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    mark: str
    """What the comment on the line before it says."""
    language: str
    text: str
    line: int


def read(page: Path) -> str:
    """Return a page's text."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = "") -> list[Block]:
    """Return the fenced blocks of a page, or those of one language."""
    text = read(page)
    found = (
        Block(match["mark"] or "", match["language"], match["text"], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    )
    return [block for block in found if language in {"", block.language}]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", read(page))


def inline_code(text: str) -> list[str]:
    """Return what stands between backticks, on one line each."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]


def rows(text: str, columns: int | None = None) -> Iterator[list[str]]:
    """Give the cells of all table rows, without heads and rulers; of tables with so many columns."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("| ") or set(line) <= set("| -:"):
            continue
        if number + 1 < len(lines) and lines[number + 1].startswith("|--"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if columns in {None, len(cells)}:
            yield cells


def section(page: Path, title: str) -> str:
    """Return the text under a heading, up to the next one of any level."""
    _, found, rest = read(page).partition(f"# {title}\n")
    assert found, f"{page.name} has no section {title}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made from the words."""
    headings = _HEADING.findall(_BLOCK.sub("", read(page)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
