"""Scores that know the tree, as functions of confusion matrices of leaves.

Each takes `counts` of shape (..., L, L), rows true and columns predicted, and gives (...): one matrix, or
thousands of bootstrap draws at once. NaN where a quotient is 0 / 0. A node's path is the node and its
ancestors, the root left out: it is on every path and would only lift the scores.

Precision, recall and F1 are those of Kiritchenko et al. 2006 ("Learning and evaluation in the presence of
class hierarchies"):
`micro` adds the nodes of all samples up, `macro` is the mean over samples, as hiclass has it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from leukotree.taxonomy import Taxonomy

Average = Literal["micro", "macro"]


class TreeScores(NamedTuple):
    """(...) each."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    macro_precision: np.ndarray
    macro_recall: np.ndarray
    macro_f1: np.ndarray
    lca_height: np.ndarray
    lca_height_of_errors: np.ndarray
    full_path_accuracy: np.ndarray


def scores(counts: np.ndarray, taxonomy: Taxonomy) -> TreeScores:
    """All of them; the first three are micro."""
    return TreeScores(
        precision=precision(counts, taxonomy),
        recall=recall(counts, taxonomy),
        f1=f1(counts, taxonomy),
        macro_precision=precision(counts, taxonomy, "macro"),
        macro_recall=recall(counts, taxonomy, "macro"),
        macro_f1=f1(counts, taxonomy, "macro"),
        lca_height=lca_height(counts, taxonomy),
        lca_height_of_errors=lca_height(counts, taxonomy, errors_only=True),
        full_path_accuracy=full_path_accuracy(counts),
    )


def precision(counts: np.ndarray, taxonomy: Taxonomy, average: Average = "micro") -> np.ndarray:
    """Share of the predicted path that lies on the true one."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, common, np.broadcast_to(lengths, common.shape), average)


def recall(counts: np.ndarray, taxonomy: Taxonomy, average: Average = "micro") -> np.ndarray:
    """Share of the true path that lies on the predicted one."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, common, np.broadcast_to(lengths[:, None], common.shape), average)


def f1(counts: np.ndarray, taxonomy: Taxonomy, average: Average = "micro") -> np.ndarray:
    """Harmonic mean of precision and recall (beta = 1); under `macro` of each sample's."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, 2 * common, lengths[:, None] + lengths, average)


def lca_height(counts: np.ndarray, taxonomy: Taxonomy, errors_only: bool = False) -> np.ndarray:
    """Mean height of the lowest common ancestor of the true and the predicted leaf, 0 where they are the
    same.

    Over all samples, or over the errors only ("mistake severity", Bertinetto et al. 2020), which a model that
    adds mild errors improves: read the two together.
    """
    counted = ~np.eye(len(taxonomy.leaves), dtype=bool) if errors_only else np.ones_like(taxonomy.lca_heights)
    return _mean(counts, taxonomy.lca_heights, counted, "micro")


def full_path_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of the samples whose whole path is right: for a decided leaf, its accuracy."""
    same = np.eye(np.shape(counts)[-1])
    return _mean(counts, same, np.ones_like(same), "micro")


def _paths(taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    """(L, L) nodes that two leaves' paths share, and (L,) nodes of each path."""
    on_path = taxonomy.path_matrix.astype(np.int64)
    return on_path @ on_path.T, on_path.sum(axis=1)


def _mean(counts: np.ndarray, part: np.ndarray, whole: np.ndarray, average: Average) -> np.ndarray:
    """Quotient of two (L, L) tables, of each pair of true and predicted leaf: of the sums over samples, or
    its mean."""
    if average == "macro":
        part, whole = part / whole, np.ones(whole.shape)
    counts = np.asarray(counts, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.einsum("...tp,tp->...", counts, part) / np.einsum("...tp,tp->...", counts, whole)
