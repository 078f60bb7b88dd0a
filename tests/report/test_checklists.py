"""checklists.md: every item of the guidelines once, answered only where the study knows, and links that lead
somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leukotree.report import checklists
from leukotree.report.blocks import Section
from leukotree.report.checklist_items import CLAIM, GUIDELINES, TRIPOD
from leukotree.report.collect import collect
from tests.helpers.study_results import STUDY, expected_runs, section

SUBITEMS = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef"}
SUBITEMS |= {"20": "abc", "23": "ab", "27": "abc"}


def test_the_items_are_those_of_the_guidelines() -> None:
    """CLAIM 2024 has 44 items; TRIPOD+AI has 27, of which some have sub-items: 52 in all."""
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]
    expected = [f"{n}{letter}" for n in range(1, 28) for letter in SUBITEMS.get(str(n), [""])]
    assert [item.number for item in TRIPOD.items] == expected
    assert len(expected) == 52


def test_an_item_names_facts_that_exist_and_says_what_is_open() -> None:
    for guideline in GUIDELINES:
        for item in guideline.items:
            assert set(item.facts) <= checklists.FACTS.keys()
            assert item.facts or item.sections or item.author


def test_an_item_is_answered_only_where_the_study_knows(whole: Path) -> None:
    summary = collect(whole, STUDY, expected_runs())
    known = checklists.facts(summary)
    item = {item.number: item for item in CLAIM.items}
    assert checklists.state(item["44"], known, {}) == "open", "nobody but the author knows the funding"
    assert checklists.state(item["18"], known, {}) == "open", "no readers"
    assert checklists.state(item["18"], known, {"Readers": "readers"}) == "answered"
    assert checklists.state(item["7"], known, {"Data": "data"}) == "begun"
    assert "readers" not in known
    assert "disjoint" not in known, "the shards are not here"
    assert known["missing"].startswith("0 of ")


def test_links_lead_to_sections_of_the_page(pages: tuple[str, str, Path]) -> None:
    markdown, html, out = pages
    text = (out / checklists.FILE).read_text(encoding="utf-8")
    links = re.findall(r"\[([^\]]+)\]\(report\.md#([^)]+)\)", text)
    assert links
    for title, anchor in set(links):
        assert f"\n## {title}\n" in markdown
        assert f'id="{anchor}"' in html
        assert anchor == Section(title, []).anchor
    rows = [line for line in text.splitlines() if re.match(r"\| \d+[a-g]? \|", line)]
    assert len(rows) == 44 + 52
    assert all(line.count(" | ") == 4 for line in rows)


@pytest.mark.parametrize("guideline", GUIDELINES, ids=lambda guideline: guideline.name)
def test_the_page_counts_the_states(guideline, pages: tuple[str, str, Path]) -> None:
    text = (pages[2] / checklists.FILE).read_text(encoding="utf-8")
    table = text.split(f"## {guideline.name}")[1].split("\n## ")[0]
    states = re.findall(r"^\| \d+[a-g]? \| [^|]+ \| (\w+) \|", table, re.MULTILINE)
    counts = ", ".join(f"{states.count(state)} {state}" for state in checklists.STATES)
    assert f"{guideline.name}: {len(guideline.items)} items, {counts}" in section(pages[0], "Checklists")
