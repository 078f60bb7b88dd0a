"""Scores of the tree against hiclass, against a loop over samples, and by hand."""

import functools
import warnings

import numpy as np
import pytest
from hiclass import metrics as hiclass
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.evaluation import metrics, tree_scores
from leukotree.taxonomy import Taxonomy
from tests.helpers.logprobs import drawn
from tests.helpers.trees import trees

PAPER = Taxonomy.paper()
SCORES = {"precision": tree_scores.precision, "recall": tree_scores.recall, "f1": tree_scores.f1}


def counts(true: np.ndarray, predicted: np.ndarray, tree: Taxonomy) -> np.ndarray:
    return metrics.confusion(true, predicted, len(tree.leaves))


def leaf_pairs(tree: Taxonomy, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return drawn(tree, n, seed)[0], drawn(tree, n, seed + 1)[0]


@pytest.fixture
def vector() -> np.ndarray:
    """True and predicted leaves of METHODS.md, worked out by hand: 6 common nodes, 13 predicted, 11 true."""
    names = (["normal", "AML", "APML", "CLL", "reactive"], ["AML", "APML", "APML", "ALL", "normal"])
    return counts(*(np.array([PAPER.leaves.index(leaf) for leaf in side]) for side in names), PAPER)


def test_the_paper_tree_by_hand(vector):
    scores = tree_scores.scores(vector, PAPER)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((6 / 13, 6 / 11, 0.5))
    assert (scores.macro_precision, scores.macro_recall, scores.macro_f1) == pytest.approx((0.4, 0.4, 0.4))
    assert (scores.lca_height, scores.lca_height_of_errors) == pytest.approx(
        ((3 + 1 + 0 + 2 + 3) / 5, (3 + 1 + 2 + 3) / 4)
    )
    assert scores.full_path_accuracy == pytest.approx(1 / 5)


@settings(max_examples=60)
@given(trees(), st.integers(1, 15), st.integers(0, 10_000))
@pytest.mark.filterwarnings("ignore:F-score is ill-defined")
def test_agrees_with_hiclass_on_random_ragged_trees(tree, n, seed):
    true, predicted = leaf_pairs(tree, n, seed)
    paths = [[list(tree.path(tree.leaves[leaf])) for leaf in side] for side in (true, predicted)]
    table = counts(true, predicted, tree)
    for average in ("micro", "macro"):
        for name, score in SCORES.items():
            expected = getattr(hiclass, name)(*paths, average=average)
            assert score(table, tree, average) == pytest.approx(expected), (average, name)


@given(trees(), st.integers(1, 15), st.integers(0, 10_000))
def test_height_of_the_common_ancestor_sample_by_sample(tree, n, seed):
    true, predicted = leaf_pairs(tree, n, seed)
    heights = []
    for pair in zip(true, predicted, strict=True):
        first, second = ((tree.root, *tree.path(tree.leaves[leaf])) for leaf in pair)
        heights.append(tree.heights[[node for node in first if node in second][-1]])
    table, wrong = counts(true, predicted, tree), [height for height in heights if height]
    assert tree_scores.lca_height(table, tree) == pytest.approx(np.mean(heights))
    assert tree_scores.lca_height(table, tree, errors_only=True) == pytest.approx(
        np.mean(wrong) if wrong else np.nan, nan_ok=True
    )
    assert tree_scores.full_path_accuracy(table) == pytest.approx(1 - len(wrong) / n)


@given(trees(), st.integers(0, 10_000))
def test_leading_axes_are_scored_each_for_itself(tree, seed):
    tables = np.stack([counts(*leaf_pairs(tree, 8, seed + i), tree) for i in range(6)]).reshape(
        2, 3, *2 * [len(tree.leaves)]
    )
    scores = tree_scores.scores(tables, tree)
    for place in np.ndindex(2, 3):
        alone = tree_scores.scores(tables[place], tree)
        np.testing.assert_allclose([score[place] for score in scores], alone)


def test_without_samples_or_errors_the_score_is_nan_without_a_warning(vector):
    right = np.diag(vector.sum(axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = tree_scores.scores(np.zeros((2, 7, 7)), PAPER)
        scores = tree_scores.scores(right, PAPER)
    assert all(np.isnan(score).all() and score.shape == (2,) for score in nothing)
    assert scores._replace(lca_height_of_errors=0) == (1, 1, 1, 1, 1, 1, 0, 0, 1)
    assert np.isnan(scores.lca_height_of_errors)


def test_a_bootstrap_can_take_any_score_as_its_statistic(vector):
    statistic = functools.partial(tree_scores.f1, taxonomy=PAPER)
    np.testing.assert_allclose(statistic(np.stack([vector, 3 * vector])), [0.5, 0.5])
