"""Hierarchical scores, as functions of confusion matrices of leaves.

Each function takes `counts` of shape (..., L, L), rows true and columns predicted, and returns (...), for one
matrix or for thousands of bootstrap draws. A quotient 0 / 0 is NaN. A node's path is the node and its
ancestors without the root, which is on every path and would only raise the scores.

Precision, recall and F1 are those of Kiritchenko et al. 2006 ("Learning and evaluation in the presence of
class hierarchies"). `micro` adds up the nodes of all samples. `macro` is the mean over samples, as in
hiclass.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from leukotree.taxonomy import Taxonomy

Average = Literal["micro", "macro"]


class TreeScores(NamedTuple):
    """All hierarchical scores. All arrays are (...)."""

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
    """All hierarchical scores. The first three are micro."""
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
    """Share of the predicted path that is on the true path."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, common, np.broadcast_to(lengths, common.shape), average)


def recall(counts: np.ndarray, taxonomy: Taxonomy, average: Average = "micro") -> np.ndarray:
    """Share of the true path that is on the predicted path."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, common, np.broadcast_to(lengths[:, None], common.shape), average)


def f1(counts: np.ndarray, taxonomy: Taxonomy, average: Average = "micro") -> np.ndarray:
    """Harmonic mean of precision and recall. Under `macro` it is the mean of each sample's F1."""
    common, lengths = _paths(taxonomy)
    return _mean(counts, 2 * common, lengths[:, None] + lengths, average)


def lca_height(counts: np.ndarray, taxonomy: Taxonomy, errors_only: bool = False) -> np.ndarray:
    """Mean height of the lowest common ancestor of the true and the predicted leaf; 0 if they are the same.

    It is over all samples, or over the errors only ("mistake severity", Bertinetto et al. 2020). More mild
    errors lower the latter, so read both together.
    """
    counted = ~np.eye(len(taxonomy.leaves), dtype=bool) if errors_only else np.ones_like(taxonomy.lca_heights)
    return _mean(counts, taxonomy.lca_heights, counted, "micro")


def full_path_accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of samples whose whole path is correct: the accuracy of the leaves."""
    same = np.eye(np.shape(counts)[-1])
    return _mean(counts, same, np.ones_like(same), "micro")


def _paths(taxonomy: Taxonomy) -> tuple[np.ndarray, np.ndarray]:
    """(L, L) number of nodes that the paths of two leaves share, and (L,) number of nodes of each path."""
    on_path = taxonomy.path_matrix.astype(np.int64)
    return on_path @ on_path.T, on_path.sum(axis=1)


def _mean(counts: np.ndarray, part: np.ndarray, whole: np.ndarray, average: Average) -> np.ndarray:
    """Quotient of two (L, L) tables of (true, predicted) leaves: of their sums over samples (`micro`), or the
    mean over samples (`macro`)."""
    if average == "macro":
        part, whole = part / whole, np.ones(whole.shape)
    counts = np.asarray(counts, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.einsum("...tp,tp->...", counts, part) / np.einsum("...tp,tp->...", counts, whole)
