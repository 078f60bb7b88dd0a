"""The costs of mistakes: complete, checked, and used by the rule expected_cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from leukotree.errors import InputError
from leukotree.evaluation import costs, decide
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import cases

PAPER = Taxonomy.paper()


def test_pairs_that_are_not_given_cost_their_height() -> None:
    table = costs.matrix({"APML": {"AML": 20, "normal": 50}}, PAPER)
    place = {leaf: index for index, leaf in enumerate(PAPER.leaves)}
    assert table[place["APML"], place["AML"]] == 20
    assert table[place["AML"], place["APML"]] == 1
    assert table[place["APML"], place["normal"]] == 50
    others = np.ones_like(table, dtype=bool)
    others[place["APML"], [place["AML"], place["normal"]]] = False
    np.testing.assert_array_equal(table[others], PAPER.lca_heights[others])


@pytest.mark.parametrize("bad", [{"APL": {"AML": 2}}, {"APML": {"leukemia": 2}}, {"root": {}}])
def test_a_name_that_is_no_leaf_is_refused(bad: costs.Costs) -> None:
    with pytest.raises(
        InputError, match=r"study s: costs: '(APL|leukemia|root)' is no leaf of the data; use normal, "
    ):
        costs.matrix(bad, PAPER, "study s: costs")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"AML": {"AML": 1}}, r"costs\.AML\.AML: a right answer costs 0, not 1"),
        ({"AML": {"ALL": -1}}, r"costs\.AML\.ALL: -1 is no cost; give 0 or more"),
        ({"AML": {"ALL": float("inf")}}, "is no cost"),
        ({"AML": {"ALL": float("nan")}}, "is no cost"),
    ],
)
def test_a_value_that_is_no_cost_is_refused(bad: costs.Costs, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        costs.check_values(bad)


def test_a_right_answer_may_be_given_as_0() -> None:
    costs.check_values({"AML": {"AML": 0, "ALL": 3}})


@given(cases())
def test_the_rule_takes_the_leaf_of_the_lowest_expected_cost(
    case: tuple[Taxonomy, np.ndarray, np.ndarray],
) -> None:
    tree, _, logp = case
    first, second = tree.leaves[:2]
    dear = costs.apply({first: {second: 7.5}}, tree)
    assert dear == tree
    probability = np.exp(decide.leaf_logp(logp, tree))
    for row, decided in zip(probability, decide.leaves(logp, dear, "expected_cost"), strict=True):
        expected = [
            sum(row[true] * dear.costs[true, leaf] for true in range(len(row))) for leaf in range(len(row))
        ]
        assert expected[decided] == pytest.approx(min(expected))


def test_a_dear_mistake_is_avoided() -> None:
    """AML has 0.9. To call an APML (0.1) AML costs 20, to call an AML APML costs 1: 0.1 x 20 > 0.9 x 1."""
    tree = Taxonomy.from_nested({"root": {"AML": None, "APML": None}})
    logp = np.log([[0.9, 0.1]])
    assert tree.leaves[decide.leaves(logp, tree, "expected_cost")[0]] == "AML"
    dear = costs.apply({"APML": {"AML": 20}}, tree)
    assert dear.leaves[decide.leaves(logp, dear, "expected_cost")[0]] == "APML"


@pytest.mark.parametrize("table", [np.ones((7, 7)), -np.ones((7, 7)), np.zeros((3, 3))])
def test_a_tree_refuses_costs_that_are_none(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="costs are a square"):
        PAPER.with_costs(table)
