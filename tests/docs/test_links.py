"""Links between documents lead somewhere, also to a heading, and so do the names of documents in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import documents

PAGES = documents.pages()
TEXTS = {path: path.read_text() for path in PAGES}


def test_the_documents_are_found() -> None:
    names = {documents.name(path) for path in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/start.md", "docs/paper.md", "results/README.md"} <= names


@pytest.mark.parametrize("path", PAGES, ids=documents.name)
def test_its_links_lead_somewhere(path: Path) -> None:
    dead = []
    for link in documents.links(TEXTS[path]):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in documents.anchors(file.read_text())):
            dead.append(link)
    assert not dead


def test_a_dead_link_and_a_dead_anchor_are_seen() -> None:
    """The reading of links and headings itself."""
    text = (
        "# A *b*: `c`\n\n[x](there.md#y) ![z](z.png) `[no](link)`\n\n```sh\n[no](link)\n# no heading\n```\n"
    )
    assert documents.links(text) == ["there.md#y", "z.png"]
    assert documents.anchors(text) == {"a-b-c"}


def test_each_document_that_code_or_a_study_names_is_there() -> None:
    named = re.compile(
        r"(?<![\w/.-])((?:docs|sweeps|slurm/container|results/[a-z]+)/[\w-]+\.(?:md|yaml))(?!\w)"
    )
    folders = ("src", "hpc", "sweeps", "slurm", "tests/truth", "docs")
    files = [path for folder in folders for path in (documents.ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".yaml", ".sh", ".md", ".html", ".toml"}
    files += [path for path in PAGES if path.name != "CHANGELOG.md"]  # which also names what was there before
    texts = [path.read_text() for path in files if path.suffix in kinds]
    names = {name for text in texts for name in named.findall(text)}
    examples = {"sweeps/NAME.yaml", "sweeps/my.yaml", "sweeps/pilot.yaml"}  # of the reader
    assert len(names) > 15
    assert [name for name in sorted(names - examples) if not (documents.ROOT / name).exists()] == []
