"""The web site of the documents: built without a warning, and it needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.helpers import browser, documents

ROOT = documents.ROOT
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""Tags and attributes whose address a browser fetches by itself."""

pytestmark = pytest.mark.slow("builds the site")


class Page(HTMLParser):
    """What a page fetches, where its links lead, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        if tag in LOADED and LOADED[tag] in values:
            self.fetched.append(values[LOADED[tag]])
        if tag == "a" and "href" in values:
            self.linked.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does it."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """The built pages, without the reports of studies, which have tests of their own."""
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "report.html"}


def test_make_docs_builds_it() -> None:
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()


def test_every_document_is_a_page(site: Path) -> None:
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    names = {documents.name(path).removeprefix("docs/") for path in documents.pages()}
    expected = {each.replace("README.md", "index.md").replace(".md", ".html") for each in names}
    checklists = {each for each in expected if each.endswith("checklists.html")}
    assert sorted(expected - built - checklists) == []


def test_nothing_comes_from_another_server(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 15
    assert [(path.name, url) for path, page in pages.items() for url in page.fetched if "//" in url] == []
    styles = "\n".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']*""", styles) == []


def test_each_link_and_file_of_the_built_pages_is_there(site: Path, pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for url in [*page.linked, *page.fetched]:
            target, _, anchor = url.partition("#")
            if "://" in target or path.name == "404.html":
                continue
            file = (path.parent / target).resolve() if target else path
            known = pages[file].anchors if file in pages else {anchor}
            if not file.is_file() or (anchor and anchor not in known):
                dead.append((path.relative_to(site).as_posix(), url))
    assert not dead


def test_the_reference_has_every_key_of_a_run(site: Path) -> None:
    from leukotree.spec import RunSpec

    text = (site / "api.html").read_text()
    for name, field in RunSpec.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        of = "RunSpec" if keys is None else field.annotation.__name__  # type: ignore[union-attr]
        absent = [key for key in keys or (name,) if f'id="leukotree.spec.{of}.{key}"' not in text]
        assert not absent, f"{of}: without a docstring: {absent}"


def test_a_browser_shows_each_page_without_an_error_and_without_scrolling_sideways(
    site: Path, pages: dict[Path, Page]
) -> None:
    """On a laptop and on a dark phone. Wide tables scroll by themselves."""
    wrong = []
    try:
        with browser.started() as tab:
            for path in sorted(path for path in pages if path.name != "404.html"):  # which a server shows
                for width, dark in ((browser.WIDE, False), (browser.NARROW, True)):
                    tab.open(path, width=width, dark=dark)
                    shown = tab.run("return document.documentElement.dataset.bsTheme")
                    inside = tab.run("return document.documentElement.scrollWidth <= innerWidth")
                    problems = tab.problems()
                    if problems or not inside or shown != ("dark" if dark else "light"):
                        wrong.append((path.relative_to(site).as_posix(), width, problems, shown))
    except browser.NoBrowser as error:
        pytest.skip(str(error))
    assert not wrong
