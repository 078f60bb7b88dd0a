"""Conformal prediction sets with patients as units: sets of leaves, and nodes of the tree.

Images of one patient are not exchangeable with those of others, patients are. The quantile is therefore
hierarchical: each of K calibration patients has the weight 1 / (K + 1), divided equally among its images, and
the patient to come has the rest, at infinity (Lee, Barber and Willett 2023, "Distribution-free inference with
hierarchical data"; it makes the pooling of Dunn, Wasserman and Ramdas 2023 valid for a finite K). An image of
a new patient has its true leaf in the set with a probability of at least the wanted coverage.

This holds where calibration and test patients are exchangeable and have the same model. Inner folds have
other models than the outer fold, trained on fewer images. The coverage is then approximate, so it is measured
on the test folds.

A set has all leaves whose score is at most the quantile. Two scores:

* leaves: 1 - P(leaf) (LAC; Sadinle, Lei and Wasserman 2019). These sets are small, and may be empty.
* nodes: the sequence of sets from the decided leaf up to the root, which is nested (Gupta, Kuchibhotla and
  Ramdas 2022). The score of a leaf is P(node) of the last node on the path to the decided leaf that does not
  have the leaf below it. The set is the end of a descent to the decided leaf that enters nodes with P(node)
  above the quantile. It is never empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

ODD = 0.01
"""Share of the right answers of inner validation that have a lower score than `low_score`."""


def quantile(scores: np.ndarray, patient: Sequence[str], coverage: float) -> float | None:
    """The hierarchical conformal quantile of N scores. None (not estimable) with fewer patients than
    coverage / (1 - coverage): the set would have all leaves.

    Args:
        scores: (N,) scores of the true leaves of calibration images.
        patient: N names. An image without a patient ("") counts as a patient.
        coverage: 1 - alpha.
    """
    weights, patients = _weights(patient)
    if patients / (patients + 1) < coverage - 1e-12:
        return None
    return _quantile(scores, weights / (patients + 1), coverage)


def leaf_scores(leaf_logp: np.ndarray) -> np.ndarray:
    """(N, L) scores 1 - P(leaf), from (N, L) log p(leaf)."""
    return -np.expm1(np.minimum(leaf_logp, 0.0))


def node_scores(logp: np.ndarray, taxonomy: Taxonomy, decided: np.ndarray) -> np.ndarray:
    """(N, L) scores of the nested nodes above the decided leaf; 0 for that leaf.

    Args:
        logp: (N, E) log p(child | parent).
        decided: (N,) leaf indices.
    """
    _, probability = decide.path_to(decided, logp, taxonomy)
    common = _common(taxonomy)[decided]  # (N, L)
    padded = np.concatenate([probability, np.zeros((len(decided), 1))], axis=1)
    return np.take_along_axis(padded, common + 1, axis=1)


def nodes(logp: np.ndarray, taxonomy: Taxonomy, decided: np.ndarray, at: float) -> np.ndarray:
    """(N,) int64 node indices: the set of the leaves whose node score is at most `at`. Index 0 is the
    root."""
    path, probability = decide.path_to(decided, logp, taxonomy)
    last = (probability[:, 1:] > at).sum(axis=1)
    return path[np.arange(len(path)), last]


def leaves_of_nodes(taxonomy: Taxonomy) -> np.ndarray:
    """(nodes, L) bool: whether a leaf is the node, or below it."""
    return np.concatenate([np.ones((1, len(taxonomy.leaves)), dtype=bool), taxonomy.leaves_below])


def low_score(leaf_logp: np.ndarray, right: np.ndarray, patient: Sequence[str]) -> float | None:
    """The largest P(leaf) below which no leaf fits: the quantile ODD of the largest P(leaf) of right answers,
    where each patient has the same weight. None without right answers.

    The largest probability is a simple score for images that are like none of the training images (Hendrycks
    and Gimpel 2017).

    Args:
        leaf_logp: (N, L) log p(leaf) of inner validation.
        right: (N,) bool.
        patient: N names, "" where unknown.
    """
    if not right.any():
        return None
    weights, patients = _weights(np.asarray(patient, dtype=str)[right])
    return _quantile(np.exp(leaf_logp.max(axis=1))[right], weights / patients, ODD)


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value with at least `share` of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) >= share - 1e-12
    return float(values[order][reached.argmax()])


def _weights(patient: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int]:
    """(N,) 1 / number of images of the image's patient, and the number of patients."""
    names = np.asarray(patient, dtype=str)
    known = names != ""
    patients, of, images = np.unique(names[known], return_inverse=True, return_counts=True)
    weights = np.ones(len(names))
    weights[known] = 1 / images[of]
    return weights, len(patients) + int((~known).sum())


def _common(taxonomy: Taxonomy) -> np.ndarray:
    """(L, L) int64: number of nodes that the paths of a decided leaf and of another leaf share, without the
    root. For the same leaf it is the number of depths."""
    cuts = taxonomy.cut_of_leaf  # (depths, L)
    same = cuts[:, :, None] == cuts[:, None, :]
    common = np.logical_and.accumulate(same, axis=0).sum(axis=0)
    assert isinstance(common, np.ndarray)
    return common
