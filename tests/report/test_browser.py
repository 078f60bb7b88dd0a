"""Reports in a real browser: wide and narrow, light and dark, on paper. These tests share one browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.helpers import browser as browsers
from tests.helpers import hostile_study, study_results
from tests.helpers.browser import NARROW, PAPER, WIDE, Browser

pytestmark = pytest.mark.slow("starts a browser")

COMMITTED = sorted((Path(__file__).parents[2] / "results").glob("*/report.html"))
TOO_WIDE = """
const limit = document.documentElement.clientWidth + 1;
const hidden = (element) => element.closest('.scroll, pre, nav') !== null;
return [...document.body.querySelectorAll('*')]
  .filter((element) => element.getBoundingClientRect().right > limit && !hidden(element))
  .map((element) => element.tagName + ' ' + element.className + ' ' + element.textContent.slice(0, 40));
"""
WITHOUT_HINT = """
return [...document.querySelectorAll('.scroll')]
  .filter((place) => place.scrollWidth > place.clientWidth + 1)
  .filter((place) => getComputedStyle(place.parentElement.querySelector('.hint')).display === 'none')
  .map((place) => place.textContent.slice(0, 60));
"""
OPEN_ALL = "document.querySelectorAll('details').forEach((part) => { part.open = true; });"
SETTLED = (
    "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))));"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with browsers.started() as started:
            yield started
    except browsers.NoBrowser as error:
        pytest.skip(f"no Chromium here: {error}")


@pytest.fixture(scope="session")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with a search for each fold, and predictions of inner folds."""
    root = study_results.make_nested(tmp_path_factory.mktemp("nested") / "synthetic")
    out = tmp_path_factory.mktemp("nested-report")
    study_results.report(root, out, study_results.NESTED)
    return out / "report.html"


@pytest.fixture(scope="session", params=["whole", "nested", *(path.parent.name for path in COMMITTED)])
def page(request: pytest.FixtureRequest) -> Path:
    """A page of each kind: made-up studies, and every committed report."""
    if request.param == "whole":
        return Path(request.getfixturevalue("pages")[2] / "report.html")
    if request.param == "nested":
        return Path(request.getfixturevalue("nested"))
    return next(path for path in COMMITTED if path.parent.name == request.param)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_wider_than_the_window_and_nothing_fails(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark)
    browser.run(OPEN_ALL)
    browser.run(SETTLED)
    assert browser.run(TOO_WIDE) == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.problems() == []
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == dark


def test_every_figure_is_drawn(browser: Browser, page: Path) -> None:
    browser.open(page, NARROW)
    browser.run(OPEN_ALL)
    sizes = browser.run(
        "return [...document.querySelectorAll('figure svg, img')].map((figure) => {"
        " const box = figure.getBoundingClientRect();"
        " return [box.width, box.height, figure.naturalWidth ?? 1]; });"
    )
    assert len(sizes) > 5
    assert all(width > 100 and height > 40 and natural for width, height, natural in sizes)


def test_links_lead_somewhere(browser: Browser, page: Path) -> None:
    browser.open(page)
    links = browser.run("return [...document.links].map((link) => link.getAttribute('href'))")
    ids = set(browser.run("return [...document.querySelectorAll('[id]')].map((part) => part.id)"))
    assert links
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    files = [unquote(link) for link in links if not link.startswith("#")]
    assert not any("://" in link or link.startswith("/") for link in files)
    # Run folders are not committed with a report.
    kept = [link for link in files if page not in COMMITTED or not link.startswith("../runs/")]
    assert [link for link in kept if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("made", ["pages", "nested"])
class TestOwnPages:
    @pytest.fixture
    def own(self, made: str, request: pytest.FixtureRequest) -> Path:
        value = request.getfixturevalue(made)
        return value if isinstance(value, Path) else value[2] / "report.html"

    @pytest.mark.parametrize("width", [WIDE, NARROW])
    def test_what_can_be_moved_to_the_side_says_so(self, browser: Browser, own: Path, width: int) -> None:
        browser.open(own, width)
        browser.run(OPEN_ALL)
        browser.run(SETTLED)
        assert browser.run(WITHOUT_HINT) == []
        wide = browser.run("return document.querySelectorAll('.wide').length")
        assert wide > 0 or width == WIDE

    def test_the_first_screen_has_the_verdict_its_interval_and_both_figures(
        self, browser: Browser, own: Path
    ) -> None:
        browser.open(own)
        card, *figures = browser.run(
            "return ['.headline', '.first figure:nth-of-type(1) svg', '.first figure:nth-of-type(2) svg']"
            ".map((place) => document.querySelector(place).getBoundingClientRect().bottom)"
        )
        assert card < 300
        assert all(bottom < browsers.HEIGHT for bottom in figures)
        shown = browser.run("return document.querySelector('.card').innerText")
        for said in ("95 %", "Smallest detectable difference", "P(better)", "Patients", "Images"):
            assert said in shown

    def test_folded_sections_open_from_the_contents(self, browser: Browser, own: Path) -> None:
        browser.open(own)
        assert not browser.run("return document.getElementById('calibration').open")
        browser.run("document.querySelector('nav a[href=\"#calibration\"]').click()")
        browser.run(SETTLED)
        assert browser.run("return document.getElementById('calibration').open")
        assert browser.run("return document.querySelectorAll('details.section[open]').length") == 1

    def test_every_table_sorts_up_down_and_back(self, browser: Browser, own: Path) -> None:
        browser.open(own)
        tables = browser.run(
            """
            const read = (table, column) => [...table.tBodies[0].rows].map((row) => {
              const cell = row.cells[column];
              return [cell.dataset.value === undefined ? null : Number(cell.dataset.value), cell.textContent];
            });
            const found = [];
            for (const table of document.querySelectorAll('table')) {
              if (table.tBodies[0].rows.length < 2) continue;
              [...table.tHead.rows[0].cells].forEach((head, column) => {
                const before = read(table, column), orders = [];
                for (let n = 0; n < 3; n++) {
                  head.querySelector('button').click();
                  orders.push(read(table, column));
                }
                found.push([before, ...orders]);
              });
            }
            return found;
            """
        )
        assert len(tables) > 50
        for before, up, down, back in tables:
            assert back == before
            for order, sign in ((up, 1), (down, -1)):
                assert sorted(map(str, order)) == sorted(map(str, before))
                values = [value for value, _ in order if value is not None]
                assert values == sorted(values, key=lambda value: sign * value)
                known = [value is not None for value, _ in order]
                if any(known):
                    assert known == sorted(known, reverse=True)  # what is missing stands last

    def test_each_csv_file_has_the_rows_of_its_table(self, browser: Browser, own: Path) -> None:
        browser.open(own)
        tables = browser.run(
            "return [...document.querySelectorAll('.table')].map((place) => ["
            "place.querySelector('a.csv').getAttribute('href'), place.querySelectorAll('tbody tr').length])"
        )
        assert len({name for name, _ in tables}) == len(tables)
        for name, rows in tables:
            read = list(csv.reader(io.StringIO((own.parent / name).read_text(encoding="utf-8"))))
            assert len(read) == rows + 1
            assert len({len(row) for row in read}) == 1

    def test_no_column_is_cut_on_paper(self, browser: Browser, own: Path) -> None:
        browser.open(own, PAPER, paper=True)
        browser.run("dispatchEvent(new Event('beforeprint'))")
        browser.run(SETTLED)
        cut = browser.run(
            "return [...document.querySelectorAll('table, figure svg, pre')]"
            ".filter((part) => part.getBoundingClientRect().right > innerWidth + 1 || part.clientWidth === 0)"
            ".map((part) => part.textContent.slice(0, 60))"
        )
        assert cut == []

    def test_it_prints_with_everything_open(self, browser: Browser, own: Path) -> None:
        browser.open(own)
        pdf = browser.pdf()
        assert pdf.startswith(b"%PDF")
        assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") > 8
        assert browser.run("return document.querySelectorAll('details.section[open]').length") == 0


def test_names_are_texts_whatever_they_are(browser: Browser, tmp_path: Path) -> None:
    """A study, leaves, sources, patients and runs whose names are markup, formulas and mathematics."""
    out = hostile_study.report(tmp_path)
    browser.open(out / "report.html")
    browser.run(OPEN_ALL)
    assert browser.run("return window.broken") is None
    assert browser.run("return document.querySelectorAll('b, i, script, [onclick], img').length") == 1
    assert browser.problems() == []
    assert browser.run(TOO_WIDE) == []
    shown = browser.run("return document.body.textContent")
    for name in (hostile_study.NAME, *hostile_study.LEAVES):
        assert name.replace("`", "") in shown.replace("`", "")
