"""Decision rules agree with a person who walks the tree one sample at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import decide
from leukotree.taxonomy import Taxonomy

PAPER = Taxonomy.paper()


@st.composite
def ragged_trees(draw: st.DrawFn) -> Taxonomy:
    """A random tree of up to 12 nodes; nodes with one child occur."""
    parents = [draw(st.integers(0, child - 1)) for child in range(1, draw(st.integers(3, 12)))]
    order = draw(st.permutations(range(len(parents))))
    edges = [(f"n{parents[i]}", f"n{i + 1}") for i in order]
    try:
        return Taxonomy.from_edges(edges)
    except ValueError:  # a chain has only one leaf
        return Taxonomy.from_edges([*edges, ("n0", "extra")])


@st.composite
def trees_with_logp(draw: st.DrawFn) -> tuple[Taxonomy, np.ndarray]:
    """Few distinct values, so that ties are common."""
    tree = draw(ragged_trees())
    values = st.lists(st.sampled_from([-4.0, -1.5, -0.25, 0.0]), min_size=len(tree.edges), max_size=len(tree.edges))
    rows = draw(st.lists(values, max_size=6))
    return tree, np.array(rows, dtype=np.float32).reshape(len(rows), len(tree.edges))


def walk(row: np.ndarray, tree: Taxonomy) -> str:
    at = tree.root
    while at in tree.children:
        best = None
        for child in tree.children[at]:
            if best is None or row[tree.edges.index(child)] > row[tree.edges.index(best)]:
                best = child
        at = best
    return at


@given(trees_with_logp())
def test_greedy_is_the_walk_from_the_root(case):
    tree, logp = case
    assert [tree.leaves[i] for i in decide.greedy(logp, tree)] == [walk(row, tree) for row in logp]


@given(trees_with_logp())
def test_leaf_logp_is_the_sum_along_the_path(case):
    tree, logp = case
    expected = [[sum(row[tree.edges.index(edge)] for edge in tree.path(leaf)) for leaf in tree.leaves] for row in logp]
    np.testing.assert_allclose(decide.leaf_logp(logp, tree), np.reshape(expected, (len(logp), len(tree.leaves))))


def test_greedy_follows_the_better_branch_even_where_another_leaf_is_likelier():
    probability = dict(zip(PAPER.edges, [0.4, 0.0, 0.6, 0.5, 0.4, 0.3, 0.3, 0.5, 0.5, 0.5], strict=True))
    with np.errstate(divide="ignore"):
        logp = np.log([[probability[edge] for edge in PAPER.edges]])
    assert PAPER.leaves[decide.leaf_logp(logp, PAPER)[0].argmax()] == "normal"
    assert PAPER.leaves[decide.greedy(logp, PAPER)[0]] == "ALL"


def test_all_equal_takes_the_first_child_in_preorder():
    assert decide.greedy(np.zeros((3, len(PAPER.edges))), PAPER).tolist() == [0, 0, 0]


def test_a_single_child_is_followed_whatever_its_value():
    tree = PAPER.prune(["normal", "AML", "APML"])
    row = dict.fromkeys(tree.edges, -1.0) | {"leukemia": 0.0, "acute": -1e30, "APML": -0.5}
    assert tree.leaves[decide.greedy(np.array([[row[edge] for edge in tree.edges]]), tree)[0]] == "APML"


def test_minus_infinity_is_a_probability_of_zero_and_not_nan():
    logp = np.zeros((1, len(PAPER.edges)))
    logp[0, PAPER.edges.index("leukemia")] = -np.inf
    found = dict(zip(PAPER.leaves, decide.leaf_logp(logp, PAPER)[0], strict=True))
    assert found["normal"] == 0
    assert found["CML"] == -np.inf


def test_another_number_of_columns_is_refused():
    with pytest.raises(ValueError, match="one column per edge"):
        decide.greedy(np.zeros((2, 3)), PAPER)
