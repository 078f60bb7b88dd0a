"""The arms of a grid get their names and their comparisons in a time that grows with their number."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.report import arms
from leukotree.report.summary import Arm

VALUES = st.sampled_from([0, 0.0, 1, 2, None, [1.0, 2.0], {"a": [1]}, "x"])
CELLS = st.lists(
    st.tuples(
        st.sampled_from(["flat", "base", "multilabel", "ensemble"]),
        st.booleans(),
        st.dictionaries(st.sampled_from(["loss.gamma", "optim.lr", "tree"]), VALUES, max_size=3),
    ),
    max_size=12,
)


def pairs_one_by_one(made: list[Arm]) -> list[tuple[str, str]]:
    """Every pair is looked at, as the rule says."""
    return [
        (arm.name, flat.name)
        for arm in made
        for flat in made
        if ((arm.variant != "flat" and flat.variant == "flat") or (arm.variant, flat.variant) == arms.MATCHED)
        and (arm.cell is None) == (flat.cell is None)
        and all(arm.values.get(key) == value for key, value in flat.values.items())
    ]


@settings(max_examples=200, deadline=None)
@given(CELLS)
def test_comparisons_that_nobody_declared_are_those_of_looking_at_every_pair(cells: Any) -> None:
    made = [
        Arm(f"arm {place}", variant, place if is_cell else None, values, ())
        for place, (variant, is_cell, values) in enumerate(cells)
    ]
    assert list(arms.primary({}, (), made)) == pairs_one_by_one(made)


def rows(n: int) -> list[dict[str, Any]]:
    return [
        {"run_name": f"{variant}-{cell}", "cell": cell, "variant": variant, "test_fold": 0, "seed": 0}
        | {"loss.gamma": cell % 10, "optim.lr": cell // 10, "loss.tau": 1}
        for cell in range(n)
        for variant in ("flat", "base")
    ]


def test_a_name_has_the_values_that_differ() -> None:
    names = [arm.name for arm, _ in arms.from_rows([], rows(12))]
    assert names[:2] == ["flat gamma=0 lr=0", "base gamma=0 lr=0"]
    assert names[-1] == "base gamma=1 lr=1"
    assert len(set(names)) == 24


def test_ten_thousand_arms_take_a_moment() -> None:
    """Looking at every pair took half a minute."""
    began = time.process_time()
    arms.check_primary({"search": {"trials": 0}, "grid": {}}, rows(5000))
    assert time.process_time() - began < 10


def test_a_wrong_name_lists_only_some_arms() -> None:
    study = {"study": "s", "search": {"trials": 0}, "primary": [["flat", "flat gamma=77"]]}
    with pytest.raises(InputError, match=r"'flat gamma=77' is none of its arms: .* and 953 more") as refused:
        arms.check_primary(study, rows(500))
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize(
    ("trains", "variants", "expected"),
    [
        ("head", ["flat", "base", "multilabel"], [("multilabel", "flat")]),
        ("head", ["flat", "base"], [("base", "flat")]),
        ("all", ["flat", "base", "multilabel"], [("base", "flat"), ("multilabel", "flat")]),
    ],
)
def test_on_a_frozen_backbone_base_is_left_out_where_multilabel_is(
    trains: str, variants: list[str], expected: list[tuple[str, str]]
) -> None:
    made = [arm for arm, _ in arms.from_rows([{"variant": variant} for variant in variants], [])]
    study = {"base": {"backbone": {"train": trains}}}
    assert list(arms.primary(study, variants, made)) == expected
    declared = {**study, "primary": [["base", "flat"]]}
    assert arms.primary(declared, variants, made) == (("base", "flat"),)


@pytest.mark.parametrize(
    ("loss", "left_out"),
    [
        ({}, True),
        ({"isolation": "chained"}, False),
        ({"kind": "conditional"}, True),
        ({"kind": "soft"}, False),
    ],
)
def test_base_is_left_out_only_where_its_heads_are_those_of_multilabel(
    loss: dict[str, str], left_out: bool
) -> None:
    """A chained head also sees the probabilities above it. `soft` has one loss for all heads."""
    variants = ["flat", "base", "multilabel"]
    made = [arm for arm, _ in arms.from_rows([{"variant": variant} for variant in variants], [])]
    study = {"base": {"backbone": {"train": "head"}, "loss": loss}}
    assert (("base", "flat") not in arms.primary(study, variants, made)) == left_out
