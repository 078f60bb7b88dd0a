"""The choice of a label tree has one text, however it is given; anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest

from leukotree import tree_choice


@pytest.mark.parametrize(
    ("given", "stored", "shown"),
    [
        (None, None, "data"),
        ("data", None, "data"),
        ("paper", "paper", "paper"),
        ("./paper", "./paper", "./paper"),
        ("trees/mine.yaml", "trees/mine.yaml", "trees/mine.yaml"),
        ("permuted:3", "permuted:3", "permuted:3"),
        ("permuted: 003", "permuted:3", "permuted:3"),
        ({"permuted": 3}, "permuted:3", "permuted:3"),
        ({"permuted": 0}, "permuted:0", "permuted:0"),
        ("./permuted:3", "./permuted:3", "./permuted:3"),
    ],
)
def test_each_form_has_one_text(given: Any, stored: str | None, shown: str) -> None:
    assert tree_choice.parse(given) == stored
    assert tree_choice.parse(stored) == stored
    assert tree_choice.name(given) == shown


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        3,
        True,
        ["paper"],
        {},
        {"permuted": -1},
        {"permuted": True},
        {"permuted": 2**31},
        {"permuted": 1.0},
        {"permuted": 1, "paper": None},
        {"shuffled": 3},
        "permuted",
        "permuted:",
        "permuted:x",
        "permuted:-1",
        "permuted:1.5",
        "permuted:٣",
        f"permuted:{2**31}",
        "permuted:" + "9" * 5000,
        "two\nlines",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_refused_with_what_is_possible(given: Any) -> None:
    with pytest.raises(ValueError, match=r"expected .*permuted:SEED"):
        tree_choice.parse(given)


def test_a_choice_is_a_file_or_has_a_seed_or_neither() -> None:
    choices = (None, "paper", "permuted:12", "./paper", "trees/mine.yaml")
    assert [tree_choice.seed(choice) for choice in choices] == [None, None, 12, None, None]
    assert [tree_choice.file(choice) for choice in choices] == [
        None,
        None,
        None,
        "./paper",
        "trees/mine.yaml",
    ]
