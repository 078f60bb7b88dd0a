"""The documents of the repository: their links, anchors, and the commands that they tell a reader to type."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/*.md", "results/**/*.md", "slurm/container/README.md")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TYPED = ("bash", "sh")
"""Languages of the blocks that a reader types."""


def pages() -> list[Path]:
    """Every document, without what git ignores."""
    found = [path for pattern in PATTERNS for path in ROOT.glob(pattern)]
    return sorted(path for path in found if "results/runs" not in path.as_posix())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages."""
    return [block for _, language, block in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of the links and images, as they are written."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`]*`", "`", prose(text)))


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as the web site and code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = (unicodedata.normalize("NFKD", re.sub(r"[`*]", "", heading)).lower() for heading in headings)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command of a block. A command may be continued on the next line by a backslash, or
    stand behind `&&`, `;` or `|`. Comments are left out."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word.strip("&|;"):
                words.append(word)
            elif words:
                yield words
                words = []
