"""Figures inside the page: its colours, names of their own, and no name that is markup."""

import re
from xml.etree import ElementTree

import pytest

from leukotree.report import drawing, figures, svg

BARS = [figures.Bar('<b>$x$ & "y"', "image", 0.1, -0.1, 0.2), figures.Bar("b − a", "patient", 0.0, -0.2, 0.1)]


@pytest.fixture(scope="module")
def drawn() -> drawing.Drawing:
    return figures.forest(BARS, 0.01, "points")


@pytest.fixture(scope="module")
def inside(drawn) -> str:
    return svg.inline(drawn.svg, "forest", 'A "caption" <i>')


def test_it_is_well_formed_and_says_what_it_shows(inside):
    root = ElementTree.fromstring(inside)
    assert root.get("aria-label") == 'A "caption" <i>'
    assert root.get("role") == "img"
    texts = "".join(root.itertext())
    assert '<b>$x$ & "y"' in texts  # as it is: no markup, no mathematics


def test_its_colours_are_those_of_the_page(inside):
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", inside)) >= {"--ink", "--grey", "--c0", "--c1"}
    assert not re.search(f"{drawing.INK}|{drawing.COLOURS[0]}|#ffffff", inside, re.IGNORECASE)
    assert svg.LIGHT.keys() == svg.DARK.keys() == set(svg.VARIABLES.values())


def test_two_figures_of_a_page_share_no_id(drawn, inside):
    other = svg.inline(drawn.svg, "other", "x")
    ids, others = (set(re.findall(r' id="([^"]*)"', one)) for one in (inside, other))
    assert ids
    assert not ids & others
    for one, own in ((inside, ids), (other, others)):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', one)) == own


def test_the_same_data_give_the_same_bytes(drawn):
    assert figures.forest(BARS, 0.01, "points") == drawn


def test_a_file_by_itself_is_on_white(drawn):
    root = ElementTree.fromstring(svg.alone(drawn.svg))
    assert root[0].get("fill") == "#ffffff"
