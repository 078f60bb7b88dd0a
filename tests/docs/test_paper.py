"""docs/paper.md has four parts for each claim, and what it quotes stands in the results."""

from __future__ import annotations

import re

import pytest

from tests.helpers import documents

PAGE = documents.ROOT / "docs/paper.md"
TEXT = PAGE.read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_it_has_what_the_paper_claims_and_leaves_open() -> None:
    assert list(SECTIONS) == [
        "The accuracy",
        "Flat or hierarchical",
        "The tree, or any tree",
        "ViT or ConvNeXt",
        "Localisation",
        "Isolation of the losses",
        "Missing values",
        "The learning rate",
        "Leakage",
        "Human readers",
        "Other sites",
        "Mixed phenotypes",
    ]
    listed = re.findall(r"^\| \[([^]]+)\]", TEXT, re.MULTILINE)
    assert listed == list(SECTIONS)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_claim_has_its_hole_its_command_and_its_state(title: str) -> None:
    body = SECTIONS[title]
    assert "**The hole.**" in body
    assert "**So far.**" in body
    assert "leukotree " in "".join(documents.blocks(body, "bash"))


@pytest.mark.parametrize("title", SECTIONS)
def test_a_quoted_number_stands_in_the_result_that_is_named(title: str) -> None:
    """Numbers with a decimal point in a paragraph that links to a result. If results are made anew, this says
    which sentences are old."""
    state = SECTIONS[title].partition("**So far.**")[2]
    for paragraph in state.split("\n\n"):
        numbers = re.findall(r"(?<![\w.-])-?\d+\.\d+", re.sub(r"\]\([^)]*\)", "]", paragraph))
        files = [PAGE.parent / link for link in documents.links(paragraph) if "/results/" in link]
        if not numbers:
            continue
        assert files, f"no result is named for {numbers}"
        result = "\n".join(file.read_text() for file in files)
        there = {float(number) for number in re.findall(r"(?<![\w.])[-+]?\d+\.\d+", result)}
        assert [number for number in numbers if float(number) not in there] == []


def test_the_accuracy_is_no_share_of_the_slides() -> None:
    """90.97 % of n cases, to two decimals. The page says that 144 is the smallest n."""
    nearest = {n: -(-90965 * n // 100000) for n in range(1, 3711)}  # the smallest k with k / n >= 0.90965
    sizes = [n for n, k in nearest.items() if 100000 * k < 90975 * n]
    assert sizes[0] == 144
    assert 84 not in sizes
    assert 3710 in sizes


def test_steps_and_the_way_of_a_weight() -> None:
    """3,710 images in five folds, 80 epochs, AdamW at 1e-6: a weight moves by about the rate in each step."""
    images = 3710 * 4 // 5
    steps = {batch: -(-images // batch) * 80 for batch in (32, 8)}
    assert f"{images:,}" in TEXT
    assert all(f"{number:,} steps" in TEXT for number in steps.values())
    assert [f"{number * 1e-6:.1g}" for number in steps.values()] == ["0.007", "0.03"]
